"""Sweeps that outgrow one call: planned as compiled programs, kept block by block, resumed, spread over workers."""

from armillary.sweeps.gather import gather as gather
from armillary.sweeps.sweep import sweep as sweep
