//! Images unlike their class: whose small grey picture is farther from the mean of its class than those of nearly all others.

/// Classes with fewer images have no fence.
const LEAST: usize = 20;
/// Beyond the third quartile, in ranges between the quartiles: what Tukey (1977) calls far out.
const FAR_OUT: f64 = 3.0;

/// An image unlike its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlike {
    /// Which.
    pub image: usize,
    /// How far beyond the fence it lies: `1 - fence / distance`, above 0 and below 1.
    pub score: f64,
}

/// The images that are far out of their class, the farthest first: by the distance of `cells` (`[n_images, len]`) from the mean
/// of the class, above `Q3 + 3 (Q3 - Q1)` of the class's distances.
///
/// # Determinism
/// Means and squares are whole numbers.
///
/// # Panics
/// If there are not as many labels as images, or a label is not below `n_classes`.
pub fn unlike(cells: &[u8], len: usize, labels: &[u32], n_classes: usize) -> Vec<Unlike> {
    assert_eq!(cells.len(), labels.len() * len, "cells of images");
    let of = |image: usize| &cells[image * len..(image + 1) * len];
    let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); n_classes];
    labels.iter().enumerate().for_each(|(image, &label)| of_class[label as usize].push(image));
    let mut found = Vec::new();
    for images in of_class.iter().filter(|images| images.len() >= LEAST) {
        let n = images.len() as i64;
        let sums: Vec<i64> = (0..len).map(|k| images.iter().map(|&i| i64::from(of(i)[k])).sum()).collect();
        // Of n times the difference, so that nothing is rounded.
        let distance = |&image: &usize| -> f64 {
            let square = |(&cell, &sum): (&u8, &i64)| i128::from(n * i64::from(cell) - sum).pow(2);
            (of(image).iter().zip(&sums).map(square).sum::<i128>() as f64).sqrt()
        };
        let distances: Vec<f64> = images.iter().map(distance).collect();
        let mut sorted = distances.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (sorted[images.len() / 4], sorted[images.len() * 3 / 4]);
        let fence = high + FAR_OUT * (high - low);
        let far = images.iter().zip(&distances).filter(|(_, distance)| **distance > fence);
        found.extend(far.map(|(&image, &distance)| Unlike { image, score: 1.0 - fence / distance }));
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.image.cmp(&b.image)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_that_is_far_out_is_found_and_no_other() {
        let mut cells: Vec<Vec<u8>> = (0..40u8).map(|i| vec![100 + i % 5, 90 + i % 3, 80]).collect();
        let mut labels: Vec<u32> = (0..40).map(|i| u32::from(i >= 20)).collect();
        let found = |cells: &[Vec<u8>], labels: &[u32]| unlike(&cells.concat(), cells[0].len(), labels, 2);
        let images =
            |cells: &[Vec<u8>], labels: &[u32]| found(cells, labels).iter().map(|one| one.image).collect::<Vec<_>>();
        assert!(images(&cells, &labels).is_empty());
        cells[7] = vec![0, 255, 0];
        cells[31] = vec![140, 90, 80];
        assert_eq!(images(&cells, &labels), [7, 31]);
        let far = found(&cells, &labels);
        assert!(far[0].score > far[1].score && far[1].score > 0.0 && far[0].score < 1.0, "{far:?}");
        // Of nineteen images nobody can say what is usual.
        cells.remove(0);
        labels.remove(0);
        assert_eq!(images(&cells, &labels), [30]);
        // Where all are the same, a fence of no width: what differs at all is out.
        let mut same = vec![vec![5u8]; 30];
        same[3] = vec![9];
        assert_eq!(images(&same, &[0; 30]), [3]);
    }
}
