"""Every key of every experiment, once, with its default, unit and meaning.

A choice is `x.name` beside one sub-dict per option; only the chosen option is read, and only it is recorded.
`config.run` holds what may change when a run resumes, `config.scores` says what is measured of its samples and
`config.compare` which runs are compared; all the rest is a run's identity, whose hash names its checkpoint, record and
report.
"""

from ml_collections import ConfigDict

from configs import sampling


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "base"  # of the experiment, for people; part of the identity
    config.seed = 0  # of all that is random
    config.vary = _vary()

    config.data = _data()
    config.task = _task()
    config.network = _network()
    config.schedule = _schedule()
    config.objective = _objective()
    config.sampler = sampling.section()
    config.optimizer = _optimizer()
    config.evaluation = _evaluation()
    config.run = _run()
    config.scores = _scores()
    config.compare = _compare()
    return config.lock()


def _vary() -> ConfigDict:
    vary = ConfigDict()  # another number draws that part anew and leaves all else as it is
    vary.init = 0  # the first parameters
    vary.train = 0  # order and augmentation of the data, noise, levels, dropout, tasks
    vary.sample = 0  # noise of samples
    vary.evaluation = 0  # noise, levels and tasks of losses and likelihoods on held-out clips
    return vary


def _data() -> ConfigDict:
    data = ConfigDict()
    data.name = "moving_shapes"  # moving_shapes | moving_digits | folder | tfds
    data.seed = 0  # of what made data contain (shapes, digits): the same world for every config.seed
    data.num_frames = 8  # of a clip
    data.height = 16  # pixels
    data.width = 16  # pixels
    data.batch_size = 64  # clips per step, over all devices
    data.num_selection = 0  # clips at the end of the validation split that settings are chosen by, and nothing else
    data.overfit = 0  # train on the first so many clips only, to check that a setting can learn at all; 0: all

    data.moving_shapes = ConfigDict()
    shapes = data.moving_shapes
    shapes.num_train = 100_000  # clips in the training split
    shapes.num_validation = 10_000  # clips in the validation split
    shapes.shapes = ("disk", "square")  # disk | square | triangle | diamond | ring
    shapes.colours = ("red", "green", "blue")  # red | green | blue | yellow | magenta | cyan | orange | white
    shapes.num_directions = 8  # equally spaced, the first one along +x
    shapes.speeds = (1.0,)  # pixels per frame
    shapes.radius = 2.5  # pixels
    shapes.background = -1.0  # grey level of the ground, in [-1, 1]
    shapes.noise = 0.0  # standard deviation of the sensor's Gaussian noise, in units of [-1, 1]
    shapes.gravity = 0.0  # pixels per frame^2, downwards; like the trail it makes the world irreversible in time
    shapes.trail = 0.0  # share of the last frame that stays visible in the next one, in [0, 1)
    shapes.cue = False  # True: a cue shown in the first frame alone decides the last one
    shapes.action_probability = 0.0  # per frame, that an action turns the direction of motion

    data.moving_digits = ConfigDict()
    digits = data.moving_digits
    digits.num_train = 100_000
    digits.num_validation = 10_000
    digits.num_digits = 2  # per clip, 1 or 2
    digits.digit_size = 0  # pixels, the side of a digit's square; 0: 22/64 of the frame's short side, and 8 at least
    digits.speed = 2.0  # pixels per frame

    data.folder = ConfigDict()
    folder = data.folder
    folder.path = ""  # of the folder of videos (mp4, webm, gif), searched recursively
    folder.cache = ""  # where decoded frames are held; empty: `<path>/.vdm_cache`
    folder.frame_stride = 1  # every n-th frame of the file
    folder.flip = False  # mirror half of the training clips left to right
    folder.validation_fraction = 0.1  # of the files, chosen by a hash of their names; at least one is left

    data.tfds = ConfigDict()
    tfds = data.tfds
    tfds.dataset = "bair_robot_pushing_small"  # or ucf101, moving_mnist, the name of what data.prepare wrote
    tfds.data_dir = ""  # where the prepared data set lies (array_record files)
    tfds.train_split = "train"  # in TFDS's notation; moving_mnist has "test" only: "test[:90%]" and "test[90%:]"
    tfds.validation_split = "test"  # "validation" for what data.prepare wrote
    tfds.frame_stride = 1
    tfds.flip = False
    return data


def _task() -> ConfigDict:
    task = ConfigDict()  # which frames of a training clip are given; the network learns to make the others
    task.name = "generation"  # generation: none | prediction | blocks | random_frames | any_subset
    task.prediction = ConfigDict()
    task.prediction.num_given = 2  # the first frames of every clip
    task.blocks = ConfigDict()  # Voleti et al. 2022 (MCVD)
    task.blocks.num_past = 2  # the first frames
    task.blocks.num_future = 2  # the last frames
    task.blocks.probability = 0.5  # that a block is given, each by itself
    task.random_frames = ConfigDict()  # Hoeppe et al. 2022 (RaMViD)
    task.random_frames.most = 4  # 1 to so many frames, anywhere
    task.random_frames.unconditional = 0.25  # probability that none is given
    task.any_subset = ConfigDict()  # Harvey et al. 2022 (FDM)
    task.any_subset.num_seen = 8  # of the clip's frames the network sees so many, given or not, at their places
    return task


def _network() -> ConfigDict:
    network = ConfigDict()
    network.name = "unet3d"
    network.label_dropout = 0.0  # probability that the class label is replaced by the null class
    network.class_conditional = False  # True: the network is told the class label
    network.learned_variance = False  # True: it also predicts the variance of a chain's steps

    network.unet3d = ConfigDict()
    unet = network.unet3d
    unet.channels = 64  # of the first level
    unet.multipliers = (1, 2)  # channels of each level, in units of `channels`
    unet.num_blocks = 1  # residual blocks per level
    unet.attention_levels = (0, 1)  # levels that have attention after each block; the middle always has it
    unet.attention = "space_time"  # space_time: within the frame, then across frames; temporal: across frames alone;
    #   linear_time: as space_time, within the frame in linear time but for the middle
    unet.head_dim = 32
    unet.num_heads = 0  # 0: as many as head_dim makes of the level's channels
    unet.attention_norm = "as_blocks"  # as_blocks: `norm`; or one of its names
    unet.position = "bucket"  # relative position bias of temporal attention; bucket: random at first; lag: a lag a
    #   head; rotary_bucket: one table for all blocks, and rotary embeddings (needs num_heads)
    unet.norm = "group"  # group (statistics of one frame) | rms | layer (of one pixel)
    unet.groups = 8  # of the group norm
    unet.block = "norm_first"  # norm_first: norm, SiLU, convolution; conv_first: convolution, norm, SiLU
    unet.noise_level = "fourier"  # how it is told: fourier (of tanh(log_snr / 10)) | cosine_step (step of such a chain)
    unet.embedding = "add"  # how a block is told level and class: add | scale_shift
    unet.stem = "conv"  # conv (3x3) | wide_temporal (7x7, then attention across frames)
    unet.resampling = "conv"  # between levels: conv | conv_4x4 | patch (space-to-depth and a linear map)
    unet.skips = "all"  # all: one block more on the way up, as Ho et al.; blocks: as many as down; levels: one a level,
    #   attention at its end alone, and from the stem to a last block
    unet.patch = 2  # pixels; space-to-depth on the way in, its inverse on the way out; 1: none
    unet.dropout = 0.0
    unet.compute_dtype = "float32"  # float32 | bfloat16; parameters, norms and softmax are float32 in either
    return network


def _schedule() -> ConfigDict:
    schedule = ConfigDict()
    schedule.name = "vp_linear"  # ddpm_linear | ddpm_cosine | smld | vp_linear | sub_vp | ve | edm | cosine | flow |
    #   learned
    schedule.discretise = 0  # steps of the chain that a continuous schedule is made into; 0: it stays continuous
    schedule.log_snr_shift = 0.0  # added to log-SNR, 2 log(64 / d) for frames of d x d (Hoogeboom et al. 2023)
    schedule.zero_terminal_snr = False  # nothing of the data is left at t = 1 (Lin et al. 2023)

    schedule.ddpm_linear = ConfigDict()  # Ho et al. 2020
    schedule.ddpm_linear.num_steps = 1000
    schedule.ddpm_linear.beta_start = 1e-4
    schedule.ddpm_linear.beta_end = 0.02

    schedule.ddpm_cosine = ConfigDict()  # Nichol & Dhariwal 2021
    schedule.ddpm_cosine.num_steps = 1000
    schedule.ddpm_cosine.offset = 0.008
    schedule.ddpm_cosine.max_beta = 0.999

    schedule.smld = ConfigDict()  # Song & Ermon 2019, geometric levels
    schedule.smld.num_steps = 1000
    schedule.smld.sigma_min = 0.02  # in units of the data's [-1, 1]; published as 0.01 and 50 for [0, 1]
    schedule.smld.sigma_max = 100.0

    schedule.vp_linear = ConfigDict()  # Song et al. 2021
    schedule.vp_linear.beta_min = 0.1
    schedule.vp_linear.beta_max = 20.0
    schedule.sub_vp = ConfigDict()  # Song et al. 2021
    schedule.sub_vp.beta_min = 0.1
    schedule.sub_vp.beta_max = 20.0
    schedule.ve = ConfigDict()  # Song et al. 2021, units as above
    schedule.ve.sigma_min = 0.02
    schedule.ve.sigma_max = 100.0

    schedule.edm = ConfigDict()  # Karras et al. 2022
    schedule.edm.sigma_min = 0.002
    schedule.edm.sigma_max = 80.0
    schedule.edm.rho = 7.0

    schedule.cosine = ConfigDict()  # continuous in log-SNR, Ho et al. 2022
    schedule.cosine.log_snr_min = -20.0
    schedule.cosine.log_snr_max = 20.0

    schedule.learned = ConfigDict()  # Kingma et al. 2021; the ends stay, what lies between is trained
    schedule.learned.hidden = 64
    schedule.learned.log_snr_min = -10.0
    schedule.learned.log_snr_max = 10.0
    return schedule


def _objective() -> ConfigDict:
    objective = ConfigDict()
    objective.target = "v"  # x0 | noise | v | score | flow | edm
    objective.data_std = 1.0  # root mean square of the data as fed, about zero (checked); scales the network's input,
    #   and is part of the target and the weighting edm
    objective.variance_weight = 0.0  # of the bound that trains the network's variance (0.001: L_hybrid); 0: none is
    objective.normalise = False  # True: the loss is scaled so that the effective weight integrates to 1 over log-SNR
    objective.dequantise = False  # train at 2 (k + u)/256 - 1, u uniform, as likelihoods want it; False: at 2 k/255 - 1

    objective.weighting = ConfigDict()
    objective.weighting.name = "unit"  # unit: 1 on the target's error | simple: 1 on the noise error | v: 1 on v's |
    #   edm: 1 on F's | flow: 1 on the velocity's | likelihood | vlb: likelihood in the steps of a chain |
    #   min_snr: min(SNR, gamma)^power on the x0 error | p2: (k + SNR)^-gamma on the noise error |
    #   sigmoid: sigmoid(bias - log_snr) on the noise error per unit of log-SNR
    objective.weighting.min_snr = ConfigDict()  # Hang et al. 2023
    objective.weighting.min_snr.gamma = 5.0
    objective.weighting.min_snr.power = 1.0  # in (0, 1]; less than 1: between the x0 error and min-SNR
    objective.weighting.p2 = ConfigDict()  # Choi et al. 2022
    objective.weighting.p2.k = 1.0
    objective.weighting.p2.gamma = 1.0
    objective.weighting.sigmoid = ConfigDict()  # Kingma & Gao 2023, Hoogeboom et al. 2024
    objective.weighting.sigmoid.bias = 0.0

    objective.times = _times()  # the measure of noise levels

    objective.proposal = ConfigDict()  # how levels of the measure are drawn: the variance, never the objective
    objective.proposal.name = "stratified"  # stratified: spread evenly over the batch | independent | loss_aware |
    #   measure: as often as another measure visits them
    objective.proposal.loss_aware = ConfigDict()  # Nichol & Dhariwal 2021: often where losses are large, divided out
    objective.proposal.loss_aware.num_buckets = 32  # of the measure, equally probable
    objective.proposal.loss_aware.decay = 0.99  # of a bucket's mean squared loss, per step
    objective.proposal.loss_aware.uniform_share = 0.1  # of draws that do not look at the losses
    objective.proposal.measure = ConfigDict()
    objective.proposal.measure.own_share = 0.1  # of draws from objective.times, which bounds the importance
    objective.proposal.measure.times = _times()  # of the other measure

    objective.noise_prior = ConfigDict()  # how the noise of a clip's frames is correlated
    objective.noise_prior.name = "independent"  # independent | shared | mixed | progressive | base_residual
    objective.noise_prior.mixed = ConfigDict()  # PYoCo, Ge et al. 2023
    objective.noise_prior.mixed.a = 1.0
    objective.noise_prior.progressive = ConfigDict()  # PYoCo
    objective.noise_prior.progressive.a = 2.0
    objective.noise_prior.base_residual = ConfigDict()  # VideoFusion, Luo et al. 2023
    objective.noise_prior.base_residual.share = 0.5  # of the base, at the centre frame
    objective.noise_prior.base_residual.decay = 1.0  # of that share per frame away from it
    return objective


def _times() -> ConfigDict:
    times = ConfigDict()
    times.name = "uniform"  # uniform (continuous) | grid (t in {1..T}/T of the discrete schedule) |
    #   logit_normal | log_snr_uniform | log_normal_sigma
    times.uniform = ConfigDict()
    times.uniform.min = 1e-3  # t is uniform in (min, 1]
    times.grid = ConfigDict()
    times.grid.num_steps = 1000
    times.logit_normal = ConfigDict()  # Esser et al. 2024
    times.logit_normal.mean = 0.0
    times.logit_normal.std = 1.0
    times.logit_normal.min = 1e-3
    times.log_snr_uniform = ConfigDict()
    times.log_snr_uniform.min = -10.0
    times.log_snr_uniform.max = 10.0
    times.log_normal_sigma = ConfigDict()  # Karras et al. 2022, of log(sigma / alpha)
    times.log_normal_sigma.mean = -1.2
    times.log_normal_sigma.std = 1.2
    return times


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = "adam"  # adam | adamw
    optimizer.learning_rate = 2e-3
    optimizer.warmup_steps = 200
    optimizer.decay_steps = 0  # cosine decay to zero over so many steps; 0: constant after the warm-up
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.99
    optimizer.epsilon = 1e-8
    optimizer.clip_norm = 1.0  # of the gradient over all parameters; steps that it touches are counted
    optimizer.ema_decay = 0.999  # of the exponential moving average of the parameters
    optimizer.ema_decay_short = 0.0  # of a second, shorter average; 0: there is none

    optimizer.adamw = ConfigDict()
    optimizer.adamw.weight_decay = 0.01
    return optimizer


def _evaluation() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.num_samples = 256  # clips that the samples' metrics are computed from
    evaluation.num_validation = 256  # clips of the validation split for the losses per level; 0: all that it has
    evaluation.log_snrs = (-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # fixed levels of the validation losses
    evaluation.batch_size = 64  # clips at a time
    evaluation.average = "long"  # which average is judged and drawn with: long (ema_decay) | short (ema_decay_short)
    return evaluation


def _scores() -> ConfigDict:
    scores = ConfigDict()
    scores.metrics = ()  # fvd | kvd | frame_frechet | motion | names of `scores.plugin`; those need at least 20 clips,
    #   the first two at least 9 frames and the weights in requirements/metrics.txt, or evaluate's --i3d_weights
    scores.num_samples = 2048  # clips of the model
    scores.num_real = 2048  # clips of the data that they are held against; as many others for the floor
    scores.repeats = 1  # independent sets of samples, over which a score is averaged
    scores.split = "validation"  # of the data: train | validation
    scores.clip_rule = "centre"  # of a longer video: centre | random; one clip of each
    scores.resize = "centres"  # to an extractor's size, bilinear: centres (as PyTorch) | corners (as TensorFlow 1)
    scores.estimator = "N-1"  # of covariances: N-1 | N
    scores.batch_size = 8  # clips at a time that features are taken of, over all devices
    scores.preset = ""  # a published protocol that the scores must follow to the letter (vdm/metrics/protocol.py)
    scores.assumed = ()  # fields of it that its source does not give, for which the user answers

    scores.likelihoods = ()  # chain (of a schedule with steps) | bound | flow: bits/dim of held-out clips, and with any
    #   of them the bound's curve over log-SNR
    scores.num_likelihood = 64  # clips of the validation split that they are taken of
    scores.log_snr_min = -10.0  # between which `bound` is taken, as far as the objective reaches
    scores.log_snr_max = 10.0  # the flow starts here
    scores.num_levels = 32  # of the bound, for every clip; and fixed log-SNRs of its curve
    scores.chain = ConfigDict()
    scores.chain.variance_interpolation = 1.0  # of its steps' log-variance, from the lower one (0) to the upper one (1)
    scores.flow = ConfigDict()
    scores.flow.rtol = 1e-4  # of the solver, relative and absolute
    scores.flow.probes = 1  # of the divergence, random signs

    scores.plugin = ConfigDict()  # name -> see `plugin`: extractors from the user's own files

    scores.samplings = ()  # names of `scores.sampling`: clips are drawn and scored once more by each of them
    scores.sampling = ConfigDict()  # name -> the keys of `config.sampler` that it changes; see `common_sampling`
    return scores


def _run() -> ConfigDict:
    run = ConfigDict()
    run.num_steps = 1000  # of the optimiser, in all
    run.log_every_steps = 50
    run.validate_every_steps = 500
    run.sample_every_steps = 500  # sample grids while it trains
    run.num_grid_samples = 8  # clips in such a grid
    run.checkpoint_every_steps = 500
    run.max_checkpoints = 2  # the newest ones are kept
    run.keep_every_steps = 0  # those of its multiples are kept besides; a multiple of checkpoint_every_steps; 0: none
    run.num_microbatches = 1  # parts of a batch done one after the other, for less memory; the step is the same
    run.remat = "kernels"  # what the backward pass does again for less memory: none | kernels (gathers those split
    #   over fsdp) | products (also all but what convolutions and dense layers give) | blocks (all but the blocks'
    #   inputs); the step is the same
    run.stuck_after_seconds = 3600.0  # in one step, save, or batch of validation or samples (compiling included): the
    #   run ends with the stacks of all threads; 0: never
    run.num_workers = 0  # processes that load data; 0: threads of this process

    run.mesh = ConfigDict()  # devices along each axis; -1: all that are left
    run.mesh.data = -1
    run.mesh.fsdp = 1
    run.mesh.tensor = 1
    run.mesh.frames = 1

    run.distributed = ConfigDict()  # several processes that are one run; each is started with the same command
    run.distributed.name = "none"  # none: one process | auto: as the cluster says (TPU pod slice, SLURM, Open MPI,
    #   Kubernetes, or JAX_COORDINATOR_ADDRESS and its like) | given: by the keys below
    run.distributed.heartbeat_seconds = 100  # a process that gave no sign of life for so long is dead: the others end
    run.distributed.given = ConfigDict()
    run.distributed.given.coordinator_address = ""  # host:port of process 0, which listens there
    run.distributed.given.num_processes = 1
    run.distributed.given.process_id = 0  # the one key that differs between the processes; 0 writes logs and records
    return run


def _compare() -> ConfigDict:
    compare = ConfigDict()
    compare.question = ""  # what the comparison asks, in a sentence or two
    compare.seeds = (0,)  # each arm is trained once per seed
    compare.arms = ()  # names of `compare.arm`, in the order of the report
    compare.arm = ConfigDict()  # name -> see `arm`
    compare.budget = ConfigDict()  # of training, which arms spend alike
    compare.budget.name = "steps"  # steps: config.run.num_steps | flops: as many steps as they pay for
    compare.budget.flops = ConfigDict()
    compare.budget.flops.total = 0.0  # of the model, nothing computed twice, for a run

    compare.select = ConfigDict()  # of the learning rate, and of the average where there are two, for each arm by the
    #   loss that it trains, on config.data.num_selection clips that nothing else sees
    compare.select.factors = ()  # of the arm's own rate, that are tried: at least 3, each 2 to 3 times the one before;
    #   (): none, every arm keeps its rate and average
    compare.select.seed = 1_000_000  # of the runs that are tried; none of `seeds`
    compare.select.max_more = 2  # factors that are added on a side whose end is the best so far
    compare.select.num_levels = 8  # at which each clip is seen

    compare.vary = ConfigDict()  # the first trained arm's first run is repeated with a part drawn anew
    compare.vary.parts = ()  # of config.vary
    compare.vary.repeats = 2  # of each

    compare.outcomes = ()  # the metrics that give the verdict over seeds, by their names in the record; none: the share
    #   of valid clips, where the data have an oracle
    compare.parallel = 1  # runs at a time on a CPU, each a process with its share of the cores; 1: one after the other
    compare.healthy = ""  # report.json of several seeds of this comparison: its curves are drawn behind the arms'
    compare.num_shown = 8  # clips per arm in the report
    return compare
