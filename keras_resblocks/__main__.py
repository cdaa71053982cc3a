"""`python -m keras_resblocks`."""

import sys

from keras_resblocks import cli

sys.exit(cli.main())
