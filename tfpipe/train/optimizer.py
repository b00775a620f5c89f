"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import tensorflow as tf
import tf_keras


class WarmupLinearDecay(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Rises from 0 to the peak over the first steps, then falls to 0 at the last (Devlin et al., 2019)."""

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        self.peak, self.warmup_steps, self.total_steps = peak, warmup_steps, total_steps

    def __call__(self, step):
        """Step (any integer type, from 0) -> learning rate, float32."""
        step = tf.cast(step, tf.float32)
        rising = (step + 1.0) / max(self.warmup_steps, 1)
        falling = (self.total_steps - step) / max(self.total_steps - self.warmup_steps, 1)
        return self.peak * tf.clip_by_value(tf.minimum(rising, falling), 0.0, 1.0)

    def get_config(self):
        """Settings."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}


def adamw(
    variables: list[tf.Variable], *, learning_rate: float, warmup_fraction: float, total_steps: int, weight_decay: float
) -> tf_keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019) over `variables`, its slots made; biases and layer norms do not decay."""
    schedule = WarmupLinearDecay(learning_rate, round(warmup_fraction * total_steps), total_steps)
    optimizer = tf_keras.optimizers.AdamW(schedule, weight_decay=weight_decay, epsilon=1e-8, jit_compile=False)
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) < 2])
    optimizer.build(variables)
    return optimizer
