//! Elementary functions with the same bits everywhere: our own polynomials, never libm.
