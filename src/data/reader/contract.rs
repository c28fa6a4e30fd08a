//! What every reader must keep, format by format: the same images through it have the same digests and labels, a cut
//! file is an error that names it, an empty one is an error.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use super::load::{Loaded, Plan, load};
use super::testing::{LIMITS, png};
use super::{Error, FORMATS, Hints, Pick, find};
use crate::data::decode::{DecodePolicy, pixel_digest};

const LABELS: [u8; 4] = [0, 1, 1, 0];

/// The values of the `i`-th image of `n` values.
fn values(i: usize, n: usize) -> Vec<u8> {
    (0..n).map(|at| ((i * 89 + at * 37) % 251) as u8).collect()
}

/// A source of one format.
struct Case {
    format: &'static str,
    /// What is read, and its file of labels.
    source: &'static str,
    labels: Option<&'static str>,
    /// A file of it, and how many bytes are cut from its end.
    cut: (&'static str, usize),
    /// Values of an image: 2x2 grey ones, but for a format that has one size.
    n_values: usize,
}

const fn case(format: &'static str, source: &'static str, cut: (&'static str, usize)) -> Case {
    Case { format, source, labels: None, cut, n_values: 4 }
}

const CASES: [Case; 8] = [
    case("idx", "idx", ("idx/train-images-idx3-ubyte", 1)),
    case("tar", "set.tar", ("set.tar", 2_000)),
    Case { n_values: 3_072, ..case("cifar", "cifar", ("cifar/data_batch_1.bin", 1)) },
    Case { labels: Some("y.npy"), ..case("npy", "x.npy", ("x.npy", 1)) },
    case("npz", "arrays.npz", ("arrays.npz", 1)),
    case("csv-paths", "paths.csv", ("paths.csv", 2)),
    case("csv-pixels", "pixels.csv", ("pixels.csv", 6)),
    case("folders", "set", ("set/a/0.png", 20)),
];

/// Writes the source of every format below `root`.
fn write(root: &Path) {
    let put = |place: &str, bytes: &[u8]| {
        fs::create_dir_all(root.join(place).parent().unwrap()).unwrap();
        fs::write(root.join(place), bytes).unwrap();
    };
    let all = |n: usize| (0..4).flat_map(|i| values(i, n)).collect::<Vec<u8>>();
    let mut archive = tar::Builder::new(Vec::new());
    let mut paths = "path,label\n".to_owned();
    for (i, label) in LABELS.iter().enumerate() {
        let (image, class) = (png(2, 2, &values(i, 4)), ["a", "b"][usize::from(*label)]);
        put(&format!("set/{class}/{i}.png"), &image);
        let mut header = tar::Header::new_ustar();
        header.set_size(image.len() as u64);
        archive.append_data(&mut header, format!("set/{class}/{i}.png"), &image[..]).unwrap();
        paths += &format!("set/{class}/{i}.png,{class}\n");
    }
    put("set.tar", &archive.into_inner().unwrap());
    put("paths.csv", paths.as_bytes());
    let idx = |shape: &[u32], values: &[u8]| {
        let axes: Vec<u8> = shape.iter().flat_map(|n| n.to_be_bytes()).collect();
        [&[0, 0, 8, shape.len() as u8][..], &axes, values].concat()
    };
    put("idx/train-images-idx3-ubyte", &idx(&[4, 2, 2], &all(4)));
    put("idx/train-labels-idx1-ubyte", &idx(&[4], &LABELS));
    let npy = |shape: &str, values: &[u8]| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
        [b"\x93NUMPY\x01\x00\x76\x00", format!("{header:<117}\n").as_bytes(), values].concat()
    };
    put("x.npy", &npy("(4, 2, 2)", &all(4)));
    put("y.npy", &npy("(4,)", &LABELS));
    let mut arrays = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("x_train.npy", npy("(4, 2, 2)", &all(4))), ("y_train.npy", npy("(4,)", &LABELS))] {
        arrays.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        arrays.write_all(&bytes).unwrap();
    }
    put("arrays.npz", &arrays.finish().unwrap().into_inner());
    let row = |i: usize| {
        let cells: Vec<String> = values(i, 4).iter().map(u8::to_string).collect();
        format!("{},{}\n", LABELS[i], cells.join(","))
    };
    put("pixels.csv", (0..4).fold("label,p0,p1,p2,p3\n".to_owned(), |table, i| table + &row(i)).as_bytes());
    // Planes of red, green and blue.
    let records = (0..4).flat_map(|i| [vec![LABELS[i]], values(i, 3_072)].concat());
    put("cifar/data_batch_1.bin", &records.collect::<Vec<u8>>());
}

/// The digest of an image as it is decoded from its file.
fn digest_of(file: &[u8]) -> u128 {
    let image = DecodePolicy::default().decode(file).unwrap();
    pixel_digest(image.shape, image.depth, &image.pixels)
}

/// Label and digest of each image, sorted; or what is wrong with the source, or with its first image that cannot be
/// had.
fn read(root: &Path, case: &Case) -> Result<Vec<(u32, u128)>, String> {
    let labels = case.labels.map(|labels| root.join(labels));
    let hints = Hints { labels: labels.as_deref(), ..Hints::default() };
    let said = |error: Error| error.message;
    let reader = find(&root.join(case.source), &hints, case.format).map_err(said)?.open(&LIMITS).map_err(said)?;
    let policy = DecodePolicy { limits: LIMITS, ..DecodePolicy::default() };
    let plan = Plan { policy: &policy, pick: Pick::new(reader.n_samples(), None), threads: 2, known: None };
    let mut images = Vec::new();
    load(&*reader, &plan, &mut |loaded: Loaded| {
        let (_, digest) = loaded.image.map_err(|why| Error::new(format!("`{}` {why}", loaded.path)))?;
        images.push((loaded.label, digest));
        Ok::<(), Error>(())
    })
    .map_err(said)?;
    images.sort_unstable();
    Ok(images)
}

#[test]
fn the_same_images_are_the_same_through_every_reader() {
    assert_eq!(CASES.map(|case| case.format), FORMATS.iter().map(|format| format.name).collect::<Vec<_>>()[..]);
    let root = tempfile::tempdir().unwrap();
    write(root.path());
    let expected = |n_values: usize| {
        let digest = |i: usize| match n_values {
            4 => digest_of(&png(2, 2, &values(i, 4))),
            _ => {
                // Planes one after the other, turned into pixels.
                let planes = values(i, 3_072);
                let pixels = (0..1_024).flat_map(|at| [0, 1, 2].map(|plane| planes[plane * 1_024 + at]));
                let mut image = Cursor::new(Vec::new());
                image::RgbImage::from_raw(32, 32, pixels.collect())
                    .unwrap()
                    .write_to(&mut image, image::ImageFormat::Png)
                    .unwrap();
                digest_of(&image.into_inner())
            }
        };
        let mut all: Vec<(u32, u128)> = (0..4).map(|i| (u32::from(LABELS[i]), digest(i))).collect();
        all.sort_unstable();
        all
    };
    for case in &CASES {
        assert_eq!(read(root.path(), case), Ok(expected(case.n_values)), "{}", case.format);
    }
}

#[test]
fn every_reader_names_a_file_that_is_cut_and_refuses_an_empty_one() {
    for case in &CASES {
        let root = tempfile::tempdir().unwrap();
        write(root.path());
        let (file, n_cut) = case.cut;
        let path = root.path().join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - n_cut]).unwrap();
        let error = read(root.path(), case).expect_err(case.format);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(error.contains(&name), "{}: {error}", case.format);
        fs::write(&path, "").unwrap();
        let error = read(root.path(), case).expect_err(case.format);
        assert!(!error.is_empty(), "{}", case.format);
    }
}
