"""What a model was compiled with."""


def compile_arguments(model):
    """Dict of the arguments that a compiled model was given, as objects."""
    return dict(model._compile_config.config)
