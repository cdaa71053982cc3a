"""Search a network for images, report what was found, save the best and test it."""

from keras_resblocks.cli import backend, options

add_arguments = options.add_arguments


def run(args):
    """Searches; the exit status."""
    searched = options.options_of(args)
    options.check_free(args.out, args.overwrite, searched.data)
    searched.backend = backend.start(searched.backend)
    from keras_resblocks.cli import job

    begun = job.Job(args.out, searched)  # which may find a mistake in the options
    if args.overwrite:
        options.forget(args.out)
    return begun.run()
