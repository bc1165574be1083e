class EvaBlock:
    pass
