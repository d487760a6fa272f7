"""Every key of every experiment, once, with its default, unit and meaning.

A choice is `x.name` beside one sub-dict per option; only the chosen option is read, and only it is recorded.
`config.run` holds what may change when a run resumes, and `config.compare` says which runs are compared; all the rest
is a run's identity, whose hash names its checkpoint, record and report.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "base"  # of the experiment, for people; part of the identity
    config.seed = 0  # of initialisation, order of the data, noise and sampling

    config.data = _data()
    config.network = _network()
    config.schedule = _schedule()
    config.objective = _objective()
    config.sampler = _sampler()
    config.optimizer = _optimizer()
    config.evaluation = _evaluation()
    config.run = _run()
    config.compare = _compare()
    return config.lock()


def _data() -> ConfigDict:
    data = ConfigDict()
    data.name = "moving_shapes"  # moving_shapes | moving_digits | folder | tfds
    data.seed = 0  # of what made data contain (shapes, digits): the same world for every config.seed
    data.num_frames = 8  # of a clip
    data.height = 16  # pixels
    data.width = 16  # pixels
    data.batch_size = 64  # clips per step, over all devices
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
    tfds.name = "bair_robot_pushing_small"  # bair_robot_pushing_small | ucf101 | moving_mnist | what data.prepare wrote
    tfds.data_dir = ""  # where the prepared data set lies (array_record files)
    tfds.train_split = "train"  # in TFDS's notation; moving_mnist has "test" only: "test[:90%]" and "test[90%:]"
    tfds.validation_split = "test"  # "validation" for what data.prepare wrote
    tfds.frame_stride = 1
    tfds.flip = False
    return data


def _network() -> ConfigDict:
    network = ConfigDict()
    network.name = "unet3d"
    network.label_dropout = 0.0  # probability that the class label is replaced by the null class
    network.class_conditional = False  # True: the network is told the class label

    network.unet3d = ConfigDict()
    unet = network.unet3d
    unet.channels = 64  # of the first level
    unet.multipliers = (1, 2)  # channels of each level, in units of `channels`
    unet.num_blocks = 1  # residual blocks per level
    unet.attention_levels = (0, 1)  # levels that have attention after each block; the middle always has it
    unet.attention = "space_time"  # space_time: within the frame, then across frames; temporal: across frames alone
    unet.head_dim = 32
    unet.position = "bucket"  # relative position bias of temporal attention; bucket: random at first; lag: a lag a head
    unet.norm = "group"  # group (statistics of one frame) | rms (of one pixel)
    unet.groups = 8  # of the group norm
    unet.embedding = "add"  # how a block is told level and class: add | scale_shift
    unet.resampling = "conv"  # between levels: conv | patch (space-to-depth and a linear map)
    unet.skips = "all"  # all: one block more on the way up, as Ho et al.; blocks: as many as down
    unet.patch = 2  # pixels; space-to-depth on the way in, its inverse on the way out; 1: none
    unet.dropout = 0.0
    unet.compute_dtype = "float32"  # float32 | bfloat16; parameters, norms and softmax are float32 in either
    unet.remat = False  # recompute the blocks' activations in the backward pass
    return network


def _schedule() -> ConfigDict:
    schedule = ConfigDict()
    schedule.name = "vp_linear"  # ddpm_linear | ddpm_cosine | vp_linear | cosine

    schedule.ddpm_linear = ConfigDict()  # Ho et al. 2020
    schedule.ddpm_linear.num_steps = 1000
    schedule.ddpm_linear.beta_start = 1e-4
    schedule.ddpm_linear.beta_end = 0.02

    schedule.ddpm_cosine = ConfigDict()  # Nichol & Dhariwal 2021
    schedule.ddpm_cosine.num_steps = 1000
    schedule.ddpm_cosine.offset = 0.008
    schedule.ddpm_cosine.max_beta = 0.999

    schedule.vp_linear = ConfigDict()  # Song et al. 2021
    schedule.vp_linear.beta_min = 0.1
    schedule.vp_linear.beta_max = 20.0

    schedule.cosine = ConfigDict()  # continuous in log-SNR, Ho et al. 2022
    schedule.cosine.log_snr_min = -20.0
    schedule.cosine.log_snr_max = 20.0
    return schedule


def _objective() -> ConfigDict:
    objective = ConfigDict()
    objective.target = "v"  # x0 | noise | v | score
    objective.data_std = 1.0  # root mean square of the data as fed, about zero (checked); scales the network's input

    objective.weighting = ConfigDict()
    objective.weighting.name = "unit"  # unit: 1 on the target's error | simple: 1 on the noise error | likelihood |
    #   min_snr: min(SNR, gamma)^power on the x0 error
    objective.weighting.min_snr = ConfigDict()  # Hang et al. 2023
    objective.weighting.min_snr.gamma = 5.0
    objective.weighting.min_snr.power = 1.0  # in (0, 1]; less than 1: between the x0 error and min-SNR

    objective.times = ConfigDict()  # the measure of noise levels
    objective.times.name = "uniform"  # uniform (continuous) | grid (t in {1..T}/T of the discrete schedule)
    objective.times.stratified = True  # levels spread evenly over the batch: less variance, the same objective
    objective.times.uniform = ConfigDict()
    objective.times.uniform.min = 1e-3  # t is uniform in (min, 1]
    objective.times.grid = ConfigDict()
    objective.times.grid.num_steps = 1000
    return objective


def _sampler() -> ConfigDict:
    sampler = ConfigDict()
    sampler.name = "heun"  # ancestral | ddim | euler_maruyama | euler | heun
    sampler.num_steps = 32  # intervals of the time grid
    sampler.spacing = "uniform"  # in t | log_snr: uniform in log-SNR
    sampler.t_min = 1e-3  # the last time before the clean clip is read off
    sampler.clip = False  # clip the estimate of x0 to [-1, 1] in every step

    sampler.ancestral = ConfigDict()
    sampler.ancestral.variance_interpolation = 0.0  # 0: the lower (beta tilde), 1: the upper (beta), geometric
    sampler.ddim = ConfigDict()
    sampler.ddim.eta = 0.0  # 0: deterministic, 1: ancestral
    return sampler


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
    optimizer.ema_decay = 0.999  # of the exponential moving average that samples are drawn with

    optimizer.adamw = ConfigDict()
    optimizer.adamw.weight_decay = 0.01
    return optimizer


def _evaluation() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.num_samples = 256  # clips that the samples' metrics are computed from
    evaluation.num_validation = 256  # clips of the validation split for the losses per level; 0: all that it has
    evaluation.log_snrs = (-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # fixed levels of the validation losses
    evaluation.batch_size = 64  # clips at a time
    return evaluation


def _run() -> ConfigDict:
    run = ConfigDict()
    run.num_steps = 1000  # of the optimiser, in all
    run.log_every_steps = 50
    run.validate_every_steps = 500
    run.sample_every_steps = 500  # sample grids while it trains
    run.num_grid_samples = 8  # clips in such a grid
    run.checkpoint_every_steps = 500
    run.max_checkpoints = 2
    run.num_workers = 0  # processes that load data; 0: threads of this process

    run.mesh = ConfigDict()  # devices along each axis; -1: all that are left
    run.mesh.data = -1
    run.mesh.fsdp = 1
    run.mesh.tensor = 1
    run.mesh.frames = 1
    return run


def _compare() -> ConfigDict:
    compare = ConfigDict()
    compare.question = ""  # what the comparison asks, in a sentence or two
    compare.seeds = (0,)  # each arm is trained once per seed
    compare.arms = ()  # names of `compare.arm`, in the order of the report
    compare.arm = ConfigDict()  # name -> see `arm`
    compare.parallel = 1  # runs at a time on a CPU, each a process with its share of the cores; 1: one after the other
    compare.healthy = ""  # report.json of several seeds of this comparison: its curves are drawn behind the arms'
    compare.num_shown = 8  # clips per arm in the report
    return compare


def arm(
    title: str, description: str, changes: dict, at_least: dict | None = None, at_most: dict | None = None
) -> ConfigDict:
    """One side of a comparison, for `config.compare.arm`.

    Args:
      title, description: for the report; the description says in a sentence what is particular to this arm.
      changes: nested as the config, the keys that differ from it.
      at_least, at_most: metric -> the line that the arm must pass.
    """
    return ConfigDict(
        {
            "title": title,
            "description": description,
            "changes": changes,
            "at_least": at_least or {},
            "at_most": at_most or {},
        }
    )
