"""Instruments for networks of other libraries, each an extra: `pip install 'armillary[torch]'`."""
