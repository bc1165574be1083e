"""The folder that nnUNet_extTrainer names. nnU-Net imports every module in it, so it has one that imports the rest."""
