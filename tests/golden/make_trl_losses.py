"""Write `trl_losses.json`: pair losses and gradients computed by TRL's own DPO trainer.

Made with trl 1.16.0 and torch 2.13.0 (CPU). The tests read only the JSON; to make it again:

    python -m venv venv && venv/bin/pip install torch==2.13.0 trl==1.16.0
    venv/bin/python tests/golden/make_trl_losses.py

Every response is a single token that follows a one-token prompt, so a policy over K responses is one row of
next-token logits. The numbers come from `DPOTrainer._compute_loss`, called on a stand-in for the trainer that
holds its settings; the stand-in model returns the log-probabilities of the labels and nothing is trained.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np

RESPONSES = 5
PAIRS = 12
TAUS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
LOSS_TYPES = ("ipo", "sigmoid")
NOTES = [
    "tau is TRL's `beta`, the coefficient of the KL anchor (larger: closer to the reference);"
    " ipodyn's beta is 1 / tau.",
    "ipo: (delta - 1 / (2 tau))^2; sigmoid: -log sigmoid(tau delta);"
    " delta = log(pi/pi_ref)[winner] - log(pi/pi_ref)[loser]. The sigmoid loss does not average over tokens.",
    "For ipo, TRL divides the log-ratio of each response by its number of tokens before it takes the difference."
    " With one-token responses this is the sum, so both conventions give these numbers.",
    "gradient: of mean_loss with respect to logits, by torch autograd.",
]


def trl_loss(loss_type, tau, logits, log_pi_ref, winners, losers):
    """The mean loss of a batch of pairs, as the trainer returns it to the optimiser."""
    import torch  # pyright: ignore[reportMissingImports]
    from trl import DPOTrainer  # pyright: ignore[reportMissingImports]

    class Model:
        training = False

        def __call__(self, input_ids, labels, **_):
            count = len(input_ids)
            log_probs = torch.log_softmax(logits, dim=0)[labels[:, 1]][:, None]
            unused = torch.zeros(count, 1, dtype=logits.dtype)  # the trainer logs these; the loss has no part in it
            return SimpleNamespace(log_probs=log_probs, entropy=unused, mean_logits=unused, is_top1=unused.bool())

    model = Model()
    trainer = SimpleNamespace(
        model=model,
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        beta=tau,
        loss_types=[loss_type],
        loss_weights=[1.0],
        label_smoothing=0.0,
        f_divergence_type="reverse_kl",
        precompute_ref_logps=True,
        ld_alpha=None,
        use_weighting=False,
        aux_loss_enabled=False,
    )
    responses = torch.cat([winners, losers])  # the trainer's batch: all chosen, then all rejected
    inputs = {
        "input_ids": torch.stack([torch.zeros_like(responses), responses], dim=1),
        "completion_mask": torch.tensor([[0, 1]]).repeat(len(responses), 1),
        "ref_chosen_logps": log_pi_ref[winners],
        "ref_rejected_logps": log_pi_ref[losers],
    }
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)


def make_case(loss_type, tau, rng):
    import torch  # pyright: ignore[reportMissingImports]

    logits = rng.normal(scale=1.5, size=RESPONSES)
    pi_ref = rng.dirichlet(np.full(RESPONSES, 2.0))
    pairs = np.array([rng.choice(RESPONSES, size=2, replace=False) for _ in range(PAIRS)])
    winners, losers = torch.tensor(pairs).T

    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    log_pi_ref = torch.log(torch.tensor(pi_ref, dtype=torch.float64))
    mean = trl_loss(loss_type, tau, z, log_pi_ref, winners, losers)
    mean.backward()
    losses = [
        trl_loss(loss_type, tau, z.detach(), log_pi_ref, winners[n : n + 1], losers[n : n + 1]).item()
        for n in range(PAIRS)
    ]
    return {
        "loss_type": loss_type,
        "tau": tau,
        "logits": logits.tolist(),
        "pi_ref": pi_ref.tolist(),
        "winners": winners.tolist(),
        "losers": losers.tolist(),
        "losses": losses,
        "mean_loss": mean.item(),
        "gradient": z.grad.tolist(),
    }


def main():
    import torch  # pyright: ignore[reportMissingImports]
    import trl  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(2310)
    cases = [make_case(loss_type, tau, rng) for loss_type in LOSS_TYPES for tau in TAUS]
    made_by = f"trl {trl.__version__} (DPOTrainer._compute_loss), torch {torch.__version__}, float64"
    body = ",\n".join(json.dumps(case) for case in cases)  # one case a line
    text = f'{{"made_by": {json.dumps(made_by)},\n"notes": {json.dumps(NOTES)},\n"cases": [\n{body}\n]}}\n'
    Path(__file__).with_name("trl_losses.json").write_text(text)


if __name__ == "__main__":
    main()
