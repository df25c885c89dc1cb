"""The zoo: three small agents trained by GRPO from one base, and everything that makes them."""
