"""Slow, obvious NumPy writings of what the library computes; tests compare with them."""

import numpy as np


def gradient_descent(weights, inputs, targets, rate, steps):
    """Full-batch descent of a deep linear network on ½ mean |y - W x|²; the weights after each step, start included."""
    weights = [np.array(w, dtype=float) for w in weights]
    history = [[w.copy() for w in weights]]
    for _ in range(steps):
        activity = [inputs.T]
        for w in weights:
            activity.append(w @ activity[-1])
        error = (activity[-1] - targets.T) / len(inputs)
        gradients = []
        for w, below in zip(weights[::-1], activity[-2::-1], strict=True):
            gradients.append(error @ below.T)
            error = w.T @ error
        weights = [w - rate * g for w, g in zip(weights, gradients[::-1], strict=True)]
        history.append([w.copy() for w in weights])
    return history


def mlp(layers, x):
    """ReLU network of (weight, bias) pairs on one input."""
    for weight, bias in layers[:-1]:
        x = np.maximum(weight @ x + bias, 0)
    weight, bias = layers[-1]
    return weight @ x + bias


def euler(velocity, start, until, steps):
    """Explicit Euler with many steps."""
    value, step = np.array(start, dtype=float), until / steps
    for _ in range(steps):
        value = value + step * velocity(value)
    return value
