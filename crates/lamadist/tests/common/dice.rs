// SPDX-License-Identifier: Apache-2.0
//! Moments by chance, that can be had again.

/// Numbers that look random, the same for the same seed (Numerical Recipes' generator).
pub struct Dice(u64);

impl Dice {
    /// By `LAMADIST_SEED`, or by the time; says which.
    pub fn from_environment() -> Self {
        let given = std::env::var("LAMADIST_SEED").ok();
        let seed = given.map_or_else(
            || {
                let now = std::time::SystemTime::now();
                now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
            },
            |s| s.parse().expect("LAMADIST_SEED is a number"),
        );
        println!("LAMADIST_SEED={seed}");
        Self(seed)
    }

    /// From 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

/// How many power cuts there are: `LAMADIST_CUTS`, or so many.
pub fn cuts(default: usize) -> usize {
    std::env::var("LAMADIST_CUTS").map_or(default, |n| n.parse().expect("LAMADIST_CUTS"))
}
