// One clock for all clips. Each arm's sheet holds its clips as columns and their frames as rows.
(function () {
  "use strict";
  const player = document.querySelector(".player");
  if (!player) return;
  const data = player.dataset;
  const width = +data.width, height = +data.height, numFrames = +data.frames, numClips = +data.clips;
  const perPage = Math.min(numClips, 8), numPages = Math.ceil(numClips / perPage);
  const find = (selector) => player.querySelector(selector);
  const sheets = [...player.querySelectorAll(".sheet")];
  const scrub = find(".scrub"), fps = find(".fps"), play = find(".play");
  let page = 0, chosen = 0, frame = 0, drawn = -1, started = 0;
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  function canvas() {
    const made = document.createElement("canvas");
    made.width = width;
    made.height = height;
    made.getContext("2d").imageSmoothingEnabled = false;
    return made;
  }

  function paint(target, sheet, clip, index) {
    target.getContext("2d").drawImage(sheet, clip * width, index * height, width, height, 0, 0, width, height);
  }

  // A row of canvases beside every sheet, and one of all frames of the chosen clip under it.
  const rows = sheets.map((sheet) => {
    const clips = document.createElement("div");
    clips.className = "clips";
    clips.style.setProperty("--columns", perPage);
    const canvases = Array.from({ length: perPage }, (_, column) => {
      const made = canvas();
      made.tabIndex = 0;
      made.setAttribute("role", "button");
      made.addEventListener("click", () => choose(page * perPage + column));
      made.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(page * perPage + column); }
      });
      clips.append(made);
      return made;
    });
    sheet.after(clips);
    return { sheet, canvases };
  });
  const strips = [...player.querySelectorAll(".strip")].map((strip, index) => {
    strip.style.setProperty("--columns", numFrames);
    const canvases = Array.from({ length: numFrames }, () => strip.appendChild(canvas()));
    return { sheet: sheets[index], canvases };
  });

  function clipsOf(sheet) { return Math.round(sheet.naturalWidth / width); }

  function draw() {
    for (const { sheet, canvases } of rows) {
      canvases.forEach((target, column) => {
        const clip = page * perPage + column;
        const exists = clip < clipsOf(sheet);
        target.style.visibility = exists ? "visible" : "hidden";
        target.classList.toggle("chosen", clip === chosen);
        target.setAttribute("aria-label", "sample " + (clip + 1) + ": show frame by frame");
        if (exists) paint(target, sheet, clip, frame);
      });
    }
    drawn = frame;
    scrub.value = frame;
    find(".frame").textContent = "frame " + (frame + 1) + " of " + numFrames;
  }

  function choose(clip) {
    chosen = clip;
    find(".sample").textContent = clip + 1;
    for (const { sheet, canvases } of strips)
      canvases.forEach((target, index) => {
        target.style.visibility = clip < clipsOf(sheet) ? "visible" : "hidden";
        paint(target, sheet, clip, index);
      });
    draw();
  }

  function turn(to) {
    page = to;
    const last = Math.min((page + 1) * perPage, numClips);
    find(".range").textContent = "samples " + (page * perPage + 1) + "\u2013" + last + " of " + numClips;
    find(".back").disabled = page === 0;
    find(".next").disabled = page === numPages - 1;
    choose(page * perPage);
  }

  function setPlaying(value) {
    playing = value;
    play.textContent = playing ? "Pause" : "Play";
    started = performance.now() - (frame * 1000) / +fps.value;
  }

  function tick(now) {
    if (playing) {
      frame = Math.floor(((now - started) * +fps.value) / 1000) % numFrames;
      if (frame < 0) frame = 0;
      if (frame !== drawn) draw();
    }
    requestAnimationFrame(tick);
  }

  play.addEventListener("click", () => setPlaying(!playing));
  fps.addEventListener("change", () => setPlaying(playing));
  scrub.addEventListener("input", () => { frame = +scrub.value; setPlaying(false); draw(); });
  find(".back").addEventListener("click", () => turn(page - 1));
  find(".next").addEventListener("click", () => turn(page + 1));

  Promise.all(sheets.map((sheet) => sheet.decode())).then(() => {
    player.classList.add("live");
    turn(0);
    setPlaying(playing);
    requestAnimationFrame(tick);
  });
})();

// A click on a column's title sorts the arms by it: the largest first, then the smallest.
(function () {
  "use strict";
  for (const table of document.querySelectorAll("table.sortable")) {
    const titles = [...table.tHead.rows[0].cells];
    const value = (row, column) => parseFloat(row.cells[column].dataset.value ?? "-Infinity");
    const order = (one, two) => (one > two) - (one < two);
    table.tHead.addEventListener("click", (event) => {
      const title = event.target.closest("button")?.closest("th");
      if (!title) return;
      const sign = title.getAttribute("aria-sort") === "descending" ? 1 : -1;
      const column = titles.indexOf(title);
      for (const other of titles) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      title.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((one, two) => sign * order(value(one, column), value(two, column))));
    });
  }
})();
