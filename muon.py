"""
The Muon optimizer: momentum whose update is made orthogonal, for the matrices inside a model's blocks.

Keller Jordan's description: https://kellerjordan.github.io/posts/muon
"""

import math

import torch


class Muon(torch.optim.Optimizer):
    """Muon for a list of matrices (2-D parameters).

    A step equals torch.optim.Muon's with adjust_lr_fn='match_rms_adamw': its updates are as large as
    AdamW's, so AdamW's learning rates and weight decay carry over (https://arxiv.org/abs/2502.16982). Two
    differences buy speed. Matrices of one shape are stacked and go through each matmul together. And
    ns_dtype, the dtype of the Newton-Schulz iteration, is a choice: torch's is always bfloat16, a hundred
    times slower than float32 on processors without it.

    lr and weight_decay as in AdamW; momentum in [0, 1); ns_dtype 'bfloat16' or 'float32'. Raises ValueError
    for a momentum out of range.
    """

    def __init__(self, params, lr, weight_decay=0.1, momentum=0.95, ns_dtype='bfloat16'):
        if not 0 <= momentum < 1:
            raise ValueError(f"Muon's momentum = {momentum} is invalid: it must be at least 0 and below 1")
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, ns_dtype=ns_dtype))

    @torch.no_grad()
    def step(self):
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape = {}
            for p in group['params']:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for params in by_shape.values():
                self.step_stack(params, group)

    def step_stack(self, params, group):
        """Update N matrices of one shape (rows, columns) with the settings of their group."""
        for p in params:
            if 'momentum_buffer' not in self.state[p]:
                self.state[p]['momentum_buffer'] = torch.zeros_like(p)
        buffers = [self.state[p]['momentum_buffer'] for p in params]
        momentum = group['momentum']

        # momentum: a running mean of the gradients; Nesterov's variant looks one step ahead
        grads = torch.stack([p.grad for p in params])   # (N, rows, columns)
        torch._foreach_lerp_(buffers, list(grads), 1 - momentum)
        grads.lerp_(torch.stack(buffers), momentum)   # now these are no gradients but Nesterov's momentum

        # the update: orthogonal, which has a root mean square of 1 / sqrt(max(rows, columns)); AdamW's have about 0.2
        ns_dtype = getattr(torch, group['ns_dtype'])
        updates = orthogonalize(grads.to(ns_dtype)).to(params[0].dtype)
        scale = 0.2 * math.sqrt(max(params[0].shape))
        torch._foreach_mul_(params, 1 - group['lr'] * group['weight_decay'])
        torch._foreach_add_(params, list(updates), alpha=-group['lr'] * scale)


def orthogonalize(G, steps=5, eps=1e-7):
    """Push the singular values of each matrix in G (N, rows, columns) to about 1 (0.7 to 1.2); the vectors stay.

    By Muon's quintic Newton-Schulz iteration, whose coefficients make small singular values grow fastest.
    It consists of matmuls alone, which every device is good at.
    """
    is_tall = G.size(1) > G.size(2)
    X = G.mT if is_tall else G   # (N, n, m), n <= m, so that X @ X.mT is small
    X = X / X.norm(dim=(1, 2), keepdim=True).clamp(min=eps)   # Frobenius norm: no singular value is above 1
    if X.device.type == 'cpu' and X.dtype == torch.float32 and X.size(2) >= 2 * X.size(1):
        X = iterate_on_gram_matrix(X, steps)
    else:
        X = iterate(X, steps)
    return X.mT.contiguous() if is_tall else X   # contiguous: foreach functions are slow at other layouts


# each step applies the polynomial a x + b x^3 + c x^5 to the singular values x
a = 3.4445
b = -4.7750
c = 2.0315


def iterate(X, steps):
    """Newton-Schulz on X (N, n, m): X <- a X + b A X + c A A X, where A = X @ X.mT."""
    for _ in range(steps):
        A = X @ X.mT   # (N, n, n)
        P = torch.baddbmm(A, A, A, beta=b, alpha=c)   # b A + c A A
        X = torch.baddbmm(X, P, X, beta=a)            # a X + P X
    return X


def iterate_on_gram_matrix(X, steps):
    """The same for a long X, on a CPU. With P = a I + b A + c A A, the step is X <- P X, and so A <- P A P. Only (n, n)
    matrices are iterated: A, and Q, which is all P multiplied; X is multiplied once, at the end. This takes fewer
    operations, but all of float32's digits."""
    A = X @ X.mT   # (N, n, n)
    Q = None
    for step in range(steps):
        P = torch.baddbmm(A, A, A, beta=b, alpha=c)
        P.diagonal(dim1=1, dim2=2).add_(a)
        Q = P if step == 0 else P @ Q
        if step < steps - 1:
            A = P @ A @ P
    return Q @ X
