"""The keys of `config.sampler`: how clips are drawn from a trained network. A part of base.py."""

from ml_collections import ConfigDict


def section() -> ConfigDict:
    sampler = ConfigDict()
    sampler.name = "heun"  # ancestral | learned_ancestral | ddim | euler_maruyama | reverse_diffusion | euler | heun |
    #   adaptive | stochastic_heun | predictor_corrector | annealed_langevin | dpm_solver | unipc
    sampler.num_steps = 32  # intervals of the time grid, of which `adaptive` takes the ends only

    sampler.spacing = ConfigDict()
    sampler.spacing.name = "uniform"  # uniform in t | trailing: in t, ends a step before 0 | log_snr: uniform in it |
    #   common: uniform between two given log-SNRs | karras: uniform in (sigma/alpha)^(1/rho)
    sampler.spacing.uniform = ConfigDict()
    sampler.spacing.uniform.t_min = 1e-3  # the last time before the clean clip is read off
    sampler.spacing.log_snr = ConfigDict()
    sampler.spacing.log_snr.t_min = 1e-3
    sampler.spacing.common = ConfigDict()
    sampler.spacing.common.log_snr_min = -10.0
    sampler.spacing.common.log_snr_max = 10.0
    sampler.spacing.karras = ConfigDict()
    sampler.spacing.karras.t_min = 1e-3
    sampler.spacing.karras.rho = 7.0

    sampler.threshold = ConfigDict()  # of the estimate of x0 in every step
    sampler.threshold.name = "none"  # none | static: clipped | dynamic: clipped and scaled by a percentile of the clip
    sampler.threshold.static = ConfigDict()
    sampler.threshold.static.low = -1.0
    sampler.threshold.static.high = 1.0
    sampler.threshold.dynamic = ConfigDict()  # Saharia et al. 2022
    sampler.threshold.dynamic.percentile = 99.5

    sampler.guidance = ConfigDict()  # of a network with labels and label_dropout
    sampler.guidance.name = "none"  # none | classifier_free: (1 + weight) x0(label) - weight x0(null)
    sampler.guidance.classifier_free = ConfigDict()  # Ho & Salimans 2022
    sampler.guidance.classifier_free.weight = 1.0  # w; the other convention's scale is s = 1 + w
    sampler.guidance.classifier_free.log_snr_min = -1e9  # guided between these levels only; +-1e9: at all
    sampler.guidance.classifier_free.log_snr_max = 1e9
    sampler.guidance.classifier_free.rescale = 0.0  # of the guided estimate's standard deviation, in [0, 1] (Lin et
    #   al. 2023: 0.7)

    _add_completion(sampler)
    _add_step_rules(sampler)
    return sampler


def _add_completion(sampler: ConfigDict) -> None:
    sampler.task = ConfigDict()  # which frames are given: those of a held-out clip, or of `sample --given`
    sampler.task.name = "generation"  # generation: none | prediction | back_prediction | infilling | interpolation
    sampler.task.prediction = ConfigDict()
    sampler.task.prediction.num_given = 2  # the first frames; 1: the animation of a picture
    sampler.task.back_prediction = ConfigDict()
    sampler.task.back_prediction.num_given = 2  # the last frames
    sampler.task.infilling = ConfigDict()
    sampler.task.infilling.num_past = 2  # the first frames
    sampler.task.infilling.num_future = 2  # the last frames
    sampler.task.interpolation = ConfigDict()
    sampler.task.interpolation.stride = 2  # every so many-th frame, from the first

    sampler.conditioning = ConfigDict()  # how they are made known
    sampler.conditioning.name = "given"  # given: as they are, to a network trained with `config.task` | replacement |
    #   reconstruction: to one trained without
    sampler.conditioning.reconstruction = ConfigDict()  # Ho et al. 2022, equation 7
    sampler.conditioning.reconstruction.weight = 2.0  # w_r


def _add_step_rules(sampler: ConfigDict) -> None:
    sampler.ancestral = ConfigDict()
    sampler.ancestral.variance_interpolation = 0.0  # 0: the lower (beta tilde), 1: the upper (beta), geometric
    sampler.ddim = ConfigDict()
    sampler.ddim.eta = 0.0  # 0: deterministic, 1: ancestral
    sampler.adaptive = ConfigDict()  # of the flow ODE, by diffrax
    sampler.adaptive.rtol = 1e-4
    sampler.adaptive.atol = 1e-4
    sampler.adaptive.max_steps = 4096
    sampler.stochastic_heun = ConfigDict()  # Karras et al. 2022
    sampler.stochastic_heun.churn = 0.0  # S_churn / num_steps
    sampler.stochastic_heun.churn_min = 0.0  # sigma/alpha
    sampler.stochastic_heun.churn_max = 1e9
    sampler.stochastic_heun.noise_scale = 1.0
    sampler.predictor_corrector = ConfigDict()  # Song et al. 2021
    sampler.predictor_corrector.predictor = "reverse_diffusion"  # ancestral | reverse_diffusion | euler_maruyama
    sampler.predictor_corrector.snr = 0.16
    sampler.predictor_corrector.num_corrections = 1
    sampler.annealed_langevin = ConfigDict()  # Song & Ermon 2019
    sampler.annealed_langevin.step_size = 0.2  # in units of sigma^2
    sampler.annealed_langevin.num_corrections = 100  # steps per level
    sampler.dpm_solver = ConfigDict()  # DPM-Solver++ multistep, Lu et al. 2022
    sampler.dpm_solver.order = 2  # 1 | 2
    sampler.dpm_solver.stochastic = False  # True: its SDE form
