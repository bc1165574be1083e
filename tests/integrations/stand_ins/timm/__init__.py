"""timm as far as nnU-Net imports it while it looks for a trainer; nothing of it is called.

The real one imports torchvision, which has to be built for the very torch that is installed.
"""
