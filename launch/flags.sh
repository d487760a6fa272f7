# Compiler flags by platform: the one table of them. Sourced by the other files with the platform in $1; what is set here
# goes into every run's record (`environment.flags`). A flag that is already set by the user stays.
#
# platform | variable         | value                                          | why, source
# tpu      | LIBTPU_INIT_ARGS | (none)                                         | libtpu's defaults: `plan` compiles with the same
# gpu      | XLA_FLAGS        | --xla_gpu_enable_latency_hiding_scheduler=true | collectives beside compute: NVIDIA JAX-Toolbox,
#          |                  |                                                | "Environment Variables"; default in its images
# cpu      | XLA_FLAGS        | (none)                                         |
case "$1" in
  tpu | cpu) ;;
  gpu) export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}" ;;
  *)
    echo "error: no flags for the platform '$1'; it must be tpu, gpu or cpu" >&2
    return 2
    ;;
esac
