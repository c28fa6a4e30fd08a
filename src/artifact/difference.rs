//! In what two files of one name differ, in words: the first tensor, row or byte that is another one.

use super::tensors::Tensors;
use super::{Bytes, Files};
use crate::config::shortest;

/// In what `new` first differs from `old`: the tensor and its element (safetensors), the row and the column (CSV,
/// counted from 1, the header is row 1), the line (JSON), the byte (from 0). `None` if they are the same bytes.
pub fn first_difference(name: &str, old: &Bytes, new: &Bytes) -> Option<String> {
    if old[..] == new[..] {
        return None;
    }
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let found = match ending {
        "safetensors" => tensors(name, old, new),
        "csv" => rows(old, new),
        "json" => lines(old, new),
        _ => None,
    };
    Some(found.unwrap_or_else(|| bytes(old, new)))
}

fn bytes(old: &[u8], new: &[u8]) -> String {
    match old.iter().zip(new).position(|(a, b)| a != b) {
        Some(at) => format!("byte {at}: {} recorded, {} computed", old[at], new[at]),
        None => format!("{} bytes recorded, {} computed", old.len(), new.len()),
    }
}

fn tensors(name: &str, old: &Bytes, new: &Bytes) -> Option<String> {
    let files = |bytes: &Bytes| Files([(name.to_owned(), bytes.clone())].into());
    let (old, new) = (files(old), files(new));
    let (old, new) = (Tensors::open(&old, name).ok()?, Tensors::open(&new, name).ok()?);
    let (a, b) = (old.names(), new.names());
    let only =
        |these: &[&str], those: &[&str]| these.iter().find(|name| !those.contains(name)).map(|n| (*n).to_owned());
    if let Some(tensor) = only(&a, &b) {
        return Some(format!("tensor `{tensor}` was not computed"));
    }
    if let Some(tensor) = only(&b, &a) {
        return Some(format!("tensor `{tensor}` is not in the record"));
    }
    let find = |tensors: &Tensors<'_>, wanted: &str| {
        tensors.iter().find(|(name, ..)| *name == wanted).map(|(_, shape, bytes)| (shape, bytes.to_vec()))
    };
    for tensor in a {
        let ((shape, before), (other, after)) = (find(&old, tensor)?, find(&new, tensor)?);
        if shape != other {
            return Some(format!("tensor `{tensor}`: shape {shape:?} recorded, {other:?} computed"));
        }
        if before == after {
            continue;
        }
        let n: usize = shape.iter().product();
        let width = before.len() / n.max(1);
        let at = before.iter().zip(&after).position(|(a, b)| a != b)? / width.max(1);
        let mut place = Vec::new();
        let mut rest = at;
        for &length in shape.iter().rev() {
            place.insert(0, rest % length.max(1));
            rest /= length.max(1);
        }
        let floats = |tensors: &Tensors<'_>| tensors.floats().find(|(name, _)| *name == tensor).map(|(_, v)| v[at]);
        let values = match (floats(&old), floats(&new)) {
            (Some(a), Some(b)) => format!("{} recorded, {} computed", shortest(a), shortest(b)),
            _ => bytes(&before, &after),
        };
        return Some(format!("tensor `{tensor}`, element {place:?}: {values}"));
    }
    None
}

fn rows(old: &[u8], new: &[u8]) -> Option<String> {
    let read = |bytes: &[u8]| -> Option<Vec<csv::StringRecord>> {
        let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes).into_records();
        reader.collect::<Result<_, _>>().ok()
    };
    let (old, new) = (read(old)?, read(new)?);
    let at = (0..old.len().max(new.len())).find(|&i| old.get(i) != new.get(i))?;
    let row = at + 1;
    let (Some(a), Some(b)) = (old.get(at), new.get(at)) else {
        return Some(format!("{} rows recorded, {} computed", old.len(), new.len()));
    };
    let column = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))?;
    let heading = old.first().and_then(|header| header.get(column)).filter(|_| at > 0).unwrap_or_default();
    let heading = if heading.is_empty() { format!("column {}", column + 1) } else { format!("column `{heading}`") };
    let cell =
        |row: &csv::StringRecord| row.get(column).map_or_else(|| "nothing".to_owned(), |cell| format!("`{cell}`"));
    Some(format!("row {row}, {heading}: {} recorded, {} computed", cell(a), cell(b)))
}

fn lines(old: &[u8], new: &[u8]) -> Option<String> {
    let (old, new) = (std::str::from_utf8(old).ok()?, std::str::from_utf8(new).ok()?);
    let (at, (a, b)) = old.lines().zip(new.lines()).enumerate().find(|(_, (a, b))| a != b)?;
    Some(format!("line {}: `{}` recorded, `{}` computed", at + 1, a.trim(), b.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::tensors::TensorsWriter;

    fn text(text: &str) -> Bytes {
        Bytes::new(text.as_bytes().to_vec())
    }

    fn weights(values: &[f32], more: &str) -> Bytes {
        let mut writer = TensorsWriter::new();
        writer.f32("b", &[2, 3], values);
        writer.u32(more, &[1], &[7]);
        Bytes::new(writer.to_bytes(None).unwrap())
    }

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let of = |name, old: &Bytes, new: &Bytes| first_difference(name, old, new).unwrap_or_default();
        let table = text("id,loss\n1,0.5\n2,0.25\n");
        assert_eq!(first_difference("a.csv", &table, &table), None);
        let other = text("id,loss\n1,0.5\n2,0.75\n");
        assert_eq!(of("a.csv", &table, &other), "row 3, column `loss`: `0.25` recorded, `0.75` computed");
        assert_eq!(of("a.csv", &table, &text("id,loss\n1,0.5\n")), "3 rows recorded, 2 computed");
        assert_eq!(of("a.csv", &table, &text("id,x\n")), "row 1, column 2: `loss` recorded, `x` computed");
        let old = weights(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "a");
        let new = weights(&[0.0, 1.0, 2.0, 3.0, 4.5, 5.0], "a");
        let expected = "tensor `b`, element [1, 1]: 4.0 recorded, 4.5 computed";
        assert_eq!(of("w.safetensors", &old, &new), expected);
        let other = weights(&[0.0; 6], "c");
        assert_eq!(of("w.safetensors", &old, &other), "tensor `a` was not computed");
        assert_eq!(
            of("w.safetensors", &old, &text("x")),
            "byte 0: 80 recorded, 120 computed".replace("80", &old[0].to_string())
        );
        assert_eq!(of("m.json", &text("{\n  1\n}"), &text("{\n  2\n}")), "line 2: `1` recorded, `2` computed");
        assert_eq!(of("i.npy", &text("ab"), &text("abc")), "2 bytes recorded, 3 computed");
    }
}
