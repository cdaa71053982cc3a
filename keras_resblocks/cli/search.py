"""Search a network for images, report what was found, save the best and test it."""


def add_arguments(parser):
    """Declares what the command takes."""
    from keras_resblocks.cli import options

    options.add_arguments(parser)


def run(args):
    """Searches; the exit status."""
    from keras_resblocks.cli import job, options

    searched = options.options_of(args)
    options.check_free(args.out, args.overwrite)
    job.choose_backend(searched.backend, args)
    return job.Job(args.out, searched).begin(args.overwrite)
