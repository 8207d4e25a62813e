"""The peers of `curvature.py`: the same job by hand in JAX, and with matfree, PyHessian and curvlinops."""

import importlib

from curvature import ENOUGH, LANCZOS, TOP, problem, timed, torch_problem


def plain_jax(size: str):
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    x, y, layers = problem(size)
    flat, tree = ravel_pytree([(jnp.asarray(w), jnp.asarray(b)) for w, b in layers])
    x, y = jnp.asarray(x), jnp.asarray(y)

    def loss(v):
        h = x
        for i, (w, b) in enumerate(tree(v)):
            h = h @ w.T + b
            h = jnp.maximum(h, 0) if i < len(layers) - 1 else h
        return jnp.mean(jax.nn.logsumexp(h, 1) - jnp.take_along_axis(h, y[:, None], 1)[:, 0])

    product = lambda p, v: jax.jvp(jax.grad(loss), (p,), (v,))[1]
    return flat, loss, product, jax.random.normal(jax.random.key(0), flat.shape)


def jax_by_hand(size: str) -> dict:
    """What one would write: forward over reverse, Lanczos of a fixed length with full re-orthogonalisation."""
    import jax
    import jax.numpy as jnp

    flat, loss, product, v = plain_jax(size)

    def lanczos(p, v, steps):
        def step(carry, j):
            basis, q, before, beta = carry
            basis = basis.at[j].set(q)
            w = product(p, q) - beta * before
            a = w @ q
            w = w - a * q
            w = w - (basis @ w) @ basis
            b = jnp.linalg.norm(w)
            return (basis, w / b, q, b), (a, b)

        empty = (jnp.zeros((steps, p.size)), v / jnp.linalg.norm(v), jnp.zeros_like(v), jnp.zeros(()))
        a, b = jax.lax.scan(step, empty, jnp.arange(steps))[1]
        return jnp.linalg.eigh(jnp.diag(a) + jnp.diag(b[:-1], 1) + jnp.diag(b[:-1], -1))

    run = {steps: jax.jit(lambda p, v, k=steps: lanczos(p, v, k)) for steps in (ENOUGH, LANCZOS)}
    gradient, one, wait = jax.jit(jax.grad(loss)), jax.jit(product), jax.block_until_ready
    return {
        "gradient": timed(lambda: wait(gradient(flat)), 15), "product": timed(lambda: wait(one(flat, v)), 15),
        "values": run[ENOUGH](flat, v)[0][::-1][:TOP].tolist(), "products": ENOUGH,
        "top": timed(lambda: wait(run[ENOUGH](flat, v))), "density": timed(lambda: wait(run[LANCZOS](flat, v)), 2),
    }  # fmt: skip


def matfree(size: str) -> dict:
    import jax
    from matfree import decomp, eig

    flat, loss, product, v = plain_jax(size)
    gradient, one, wait = jax.jit(jax.grad(loss)), jax.jit(product), jax.block_until_ready
    partial = eig.eigh_partial(decomp.tridiag_sym(ENOUGH, materialize=True))
    top = jax.jit(lambda p, v: partial(lambda u: product(p, u), v)[0])
    tridiagonal = decomp.tridiag_sym(LANCZOS, materialize=False)
    density = jax.jit(lambda p, v: tridiagonal(lambda u: product(p, u), v).J_small)
    return {
        "gradient": timed(lambda: wait(gradient(flat)), 15), "product": timed(lambda: wait(one(flat, v)), 15),
        "values": sorted(top(flat, v).tolist(), reverse=True)[:TOP], "products": ENOUGH,
        "top": timed(lambda: wait(top(flat, v))), "density": timed(lambda: wait(density(flat, v)), 2),
    }  # fmt: skip


def pyhessian(size: str) -> dict:
    import torch

    module, loss, data, _, gradient = torch_problem(size)
    tool = importlib.import_module("pyhessian.hessian")

    def modern(matrix, eigenvectors=True):  # the release calls torch.eig, which PyTorch 2 no longer has
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    torch.eig = modern
    counted, original = [0], tool.hessian_vector_product

    def counting(*args):
        counted[0] += 1
        return original(*args)

    tool.hessian_vector_product = counting
    hessian = tool.hessian(module, loss, data=data, cuda=False)
    v = [torch.randn_like(p) for p in hessian.params]
    product = timed(lambda: original(hessian.gradsH, hessian.params, v), 15)
    counted[0] = 0
    values = sorted(hessian.eigenvalues(maxIter=100, tol=1e-3, top_n=TOP)[0], reverse=True)
    used = counted[0]
    top = timed(lambda: hessian.eigenvalues(maxIter=100, tol=1e-3, top_n=TOP), 1)
    density = timed(lambda: hessian.density(iter=LANCZOS, n_v=1), 1)
    return {
        "gradient": gradient,
        "product": product,
        "values": values,
        "products": used,
        "top": top,
        "density": density,
    }


def curvlinops(size: str) -> dict:
    import numpy as np
    import torch
    from curvlinops import HessianLinearOperator
    from curvlinops.papyan2020traces.spectrum import fast_lanczos
    from scipy.sparse.linalg import LinearOperator, eigsh

    module, loss, data, weights, gradient = torch_problem(size)
    operator = HessianLinearOperator(module, loss, weights, [data], check_deterministic=False)
    matrix, used = operator.to_scipy(), [0]

    def multiply(v):
        used[0] += 1
        return matrix @ v

    counted = LinearOperator(matrix.shape, matvec=multiply, dtype=np.float32)
    start = np.random.default_rng(1).standard_normal(matrix.shape[0]).astype(np.float32)
    find = lambda: eigsh(counted, k=TOP, which="LA", tol=1e-3, return_eigenvectors=False, v0=start)
    values = sorted(find().tolist(), reverse=True)
    products = used[0]
    v = torch.randn(matrix.shape[0])
    return {
        "gradient": gradient, "product": timed(lambda: operator @ v, 15), "values": values, "products": products,
        "top": timed(find, 2), "density": timed(lambda: fast_lanczos(operator, LANCZOS), 1),
    }  # fmt: skip
