//! NumPy's `.npy` files: the same shape, order and type, and elements that are equal or close.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::panic::catch_unwind;
use std::path::Path;

use npyz::{DType, NpyFile, TypeChar, TypeStr};

use crate::Tolerance;
use crate::files::Verdict;

/// The longest header that is read, in bytes; NumPy itself refuses more than 10,000.
const HEADER_BYTES_MAX: u32 = 64 << 10;

type Array = NpyFile<BufReader<File>>;

/// Compares two arrays. Arrays of anything but floating-point and complex numbers, and of
/// floating-point numbers of unusual width, must be equal byte by byte.
pub(crate) fn compare(a: &Path, b: &Path, tolerance: &Tolerance) -> Verdict {
    let (Some(a), Some(b)) = (open(a), open(b)) else { return Verdict::NotThatKind };
    if a.shape() != b.shape() || a.order() != b.order() {
        return Verdict::Differ("its shape".into());
    }
    let (of_a, of_b) = (scalar(&a.dtype()), scalar(&b.dtype()));
    let (Some(of_a), Some(of_b)) = (of_a, of_b) else { return Verdict::NotThatKind };
    let kind = (of_a.type_char(), of_a.size_field());
    // Only the order of bytes may differ.
    if kind != (of_b.type_char(), of_b.size_field()) {
        return Verdict::Differ("its type".into());
    }
    match kind {
        (TypeChar::Float, 4) => {
            elements::<f32>(a, b, |a, b| tolerance.close(f64::from(*a), f64::from(*b)))
        }
        (TypeChar::Float, 8) => elements::<f64>(a, b, |a, b| tolerance.close(*a, *b)),
        (TypeChar::Complex, 8) => elements::<num_complex::Complex32>(a, b, |a, b| {
            tolerance.close(f64::from(a.re), f64::from(b.re))
                && tolerance.close(f64::from(a.im), f64::from(b.im))
        }),
        (TypeChar::Complex, 16) => elements::<num_complex::Complex64>(a, b, |a, b| {
            tolerance.close(a.re, b.re) && tolerance.close(a.im, b.im)
        }),
        _ => Verdict::NotThatKind,
    }
}

/// Opens an array whose header is of sensible length and agrees with the file's size.
fn open(path: &Path) -> Option<Array> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let mut start = [0; 12];
    file.read_exact(&mut start).ok()?;
    let header_bytes = match start[6] {
        1 => u32::from(u16::from_le_bytes([start[8], start[9]])),
        _ => u32::from_le_bytes([start[8], start[9], start[10], start[11]]),
    };
    if header_bytes > HEADER_BYTES_MAX {
        return None;
    }
    file.rewind().ok()?;
    // The product of a shape that nobody could mean overflows in there.
    let array = catch_unwind(|| NpyFile::new(file)).ok()?.ok()?;
    let elements = array.shape().iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
    let width = u64::try_from(scalar(&array.dtype())?.num_bytes()?).ok()?;
    let before = match start[6] {
        1 => 10 + u64::from(header_bytes),
        _ => 12 + u64::from(header_bytes),
    };
    let bytes = std::fs::metadata(path).ok()?.len();
    (elements.checked_mul(width)?.checked_add(before)? == bytes).then_some(array)
}

/// The type of an array of plain elements.
fn scalar(dtype: &DType) -> Option<TypeStr> {
    match dtype {
        DType::Plain(scalar) => Some(scalar.clone()),
        _ => None,
    }
}

fn elements<T: npyz::Deserialize>(a: Array, b: Array, close: impl Fn(&T, &T) -> bool) -> Verdict {
    let (Ok(a), Ok(b)) = (a.data::<T>(), b.data::<T>()) else { return Verdict::NotThatKind };
    for (index, pair) in a.zip(b).enumerate() {
        match pair {
            (Ok(a), Ok(b)) if close(&a, &b) => {}
            (Ok(_), Ok(_)) => return Verdict::Differ(format!("element {index}")),
            (Err(_), _) | (_, Err(_)) => return Verdict::NotThatKind,
        }
    }
    Verdict::Match
}

#[cfg(test)]
mod tests {
    use npyz::WriterBuilder;

    use super::*;

    fn array<T: npyz::AutoSerialize>(shape: &[u64], elements: &[T]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes);
        let mut writer = writer.begin_nd().expect("a header");
        writer.extend(elements).expect("elements");
        writer.finish().expect("the shape is full");
        bytes
    }

    fn verdict(a: &[u8], b: &[u8]) -> Verdict {
        let folder = tempfile::tempdir().expect("a folder");
        let [a, b] = [("a", a), ("b", b)].map(|(name, bytes)| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        });
        compare(&a, &b, &Tolerance::new(1e-5, 0.0).expect("a tolerance"))
    }

    #[test]
    fn elements_may_be_close() {
        let a = array(&[2, 2], &[1.0f64, 2.0, 3.0, f64::NAN]);
        assert_eq!(verdict(&a, &array(&[2, 2], &[1.000_001, 2.0, 3.0, f64::NAN])), Verdict::Match);
        let far = array(&[2, 2], &[1.0, 2.0, 3.1, f64::NAN]);
        assert_eq!(verdict(&a, &far), Verdict::Differ("element 2".into()));
        assert_eq!(verdict(&array(&[1], &[1.0f32]), &array(&[1], &[1.000_001f32])), Verdict::Match);
        let complex = |re, im| array(&[1], &[num_complex::Complex64::new(re, im)]);
        assert_eq!(verdict(&complex(1.0, 2.0), &complex(1.000_001, 2.0)), Verdict::Match);
        assert!(matches!(verdict(&complex(1.0, 2.0), &complex(1.0, 2.1)), Verdict::Differ(_)));
    }

    #[test]
    fn shape_and_type_count() {
        let a = array(&[4], &[1.0f64; 4]);
        assert!(matches!(verdict(&a, &array(&[2, 2], &[1.0f64; 4])), Verdict::Differ(_)));
        assert!(matches!(verdict(&a, &array(&[4], &[1.0f32; 4])), Verdict::Differ(_)));
        let integers = array(&[1], &[1i64]);
        assert_eq!(verdict(&integers, &array(&[1], &[2i64])), Verdict::NotThatKind);
    }

    #[test]
    fn rubbish_is_not_an_array() {
        let good = array(&[4], &[1.0f64; 4]);
        let (cut, long) = (&good[..good.len() - 1], [&good[..], &[0]].concat());
        for bytes in [b"" as &[u8], b"\x93NUMPY", cut, &long] {
            assert_eq!(verdict(bytes, &good), Verdict::NotThatKind);
        }
        let header =
            "{'descr': '<f8', 'fortran_order': False, 'shape': (8589934592, 8589934592), }";
        let length = u16::try_from(header.len()).expect("short").to_le_bytes();
        let endless = [b"\x93NUMPY\x01\0", &length[..], header.as_bytes()].concat();
        assert_eq!(verdict(&endless, &good), Verdict::NotThatKind);
        let claims_4_gib = [b"\x93NUMPY\x02\0" as &[u8], &[0xff; 4], b"{}"].concat();
        assert_eq!(verdict(&claims_4_gib, &good), Verdict::NotThatKind);
    }
}
