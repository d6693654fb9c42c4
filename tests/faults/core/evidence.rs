//! What opens, closes and observes a circuit.
