"""The annotations of what the tests call are checked, shapes included."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from armillary import models
from armillary.models import DeepLinear


def test_a_wrong_type_is_refused(key):
    with pytest.raises(jaxtyping.TypeCheckError, match="'rows'"):
        models.haar_orthogonal(key, "3", 3)


def test_a_wrong_shape_is_refused(key):
    network = DeepLinear(depth=1)(key, 3, 2)
    assert network(jnp.ones(3)).shape == (2,)
    with pytest.raises(jaxtyping.TypeCheckError, match="'x'"):
        network(jnp.ones((4, 3)))


@pytest.mark.usefixtures("unchecked")
def test_checking_can_be_left_out(key):
    assert DeepLinear(depth=1)(key, 3, 2)(np.ones(3)).shape == (2,)  # no array of jax's: refused where it is checked
