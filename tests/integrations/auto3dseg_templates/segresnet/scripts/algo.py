"""A stand-in for Auto3DSeg's SegResNet: fills in its configuration as the published one does, as far as losses need it.

Written from what the published template does (Project-MONAI/research-contributions, auto3dseg/algorithm_templates),
which MONAI downloads; nothing of it is copied.
"""

import shutil
from pathlib import Path

from monai.apps.auto3dseg import BundleAlgo
from monai.bundle import ConfigParser


class SegresnetAlgo(BundleAlgo):
    """What AutoRunner makes of a template: a folder with a configuration and a script."""

    def fill_template_config(self, data_stats_file, output_path, **kwargs):
        """The data's facts, and on top of them every other key of the user's input."""
        wishes = ConfigParser.load_config_file(self.data_list_file)
        stats = ConfigParser.load_config_file(data_stats_file)["stats_summary"]
        wishes.pop("modality")
        filled = {
            "bundle_root": output_path,
            "data_file_base_dir": str(Path(wishes.pop("dataroot")).absolute()),
            "data_list_file_path": str(Path(wishes.pop("datalist")).absolute()),
            "input_channels": stats["image_stats"]["channels"]["max"],
            "output_classes": len(stats["label_stats"]["labels"]),
            **wishes,
            **kwargs,
        }
        path = Path(output_path, "configs", "hyper_parameters.yaml")
        config = ConfigParser.load_config_file(path)
        ConfigParser.export_config_file({**config, **filled}, path, fmt="yaml", sort_keys=False)
        return {path.name: filled}

    def export_to_disk(self, output_path, algo_name, **kwargs):
        """The modules of custom transforms go along, as files beside the place where AutoRunner is started."""
        super().export_to_disk(output_path=output_path, algo_name=algo_name, **kwargs)
        config = ConfigParser.load_config_file(Path(self.output_path, "configs", "hyper_parameters.yaml"))
        for custom in config["custom_data_transforms"]:
            module, _ = custom["transform"]["_target_"].rsplit(".", 1)
            shutil.copy(module.replace(".", "/") + ".py", self.output_path)
