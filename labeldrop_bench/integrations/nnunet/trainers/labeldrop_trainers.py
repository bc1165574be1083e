"""Where nnU-Net looks for the trainers by name. Import them from `labeldrop_bench.integrations.nnunet.trainer`."""

from labeldrop_bench.integrations.nnunet.trainer import *  # noqa: F403 - all that is there, by name
