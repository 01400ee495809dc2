//! Tensors as typed slices.

use std::borrow::Cow;

use bytemuck::allocation::pod_collect_to_vec;
use bytemuck::{Pod, try_cast_slice};
use bytes::Bytes;
use zoo_proto::tensor::TensorType;

/// Compiles only where a number's bytes are in the order of the link.
const _: () =
    assert!(cfg!(target_endian = "little"), "tensors are little-endian, and so must be the machine");

/// A tensor of a request: its shape, and its values row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<'a, T: Element> {
    /// Length of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values: borrowed from the request if their bytes are aligned, a copy otherwise.
    pub values: Cow<'a, [T]>,
}

/// A type that tensors can have.
pub trait Element: Pod {
    /// Its name in the open inference protocol.
    const DTYPE: &'static str;

    /// The bytes of these values, if they fill the shape.
    #[doc(hidden)]
    fn to_bytes(shape: &[usize], values: &[Self]) -> Result<Bytes, String> {
        let tensor = TensorType { dtype: Self::DTYPE.to_owned(), shape: shape.to_vec() };
        if tensor.elements() == Some(values.len()) {
            Ok(Bytes::copy_from_slice(bytemuck::cast_slice(values)))
        } else {
            Err(format!("{} values don't fill a tensor of shape {shape:?}", values.len()))
        }
    }
}

macro_rules! elements {
    ($($type:ty = $name:literal,)*) => {
        $(impl Element for $type { const DTYPE: &'static str = $name; })*
    };
}

elements! {
    f32 = "FP32", f64 = "FP64",
    i8 = "INT8", i16 = "INT16", i32 = "INT32", i64 = "INT64",
    u8 = "UINT8", u16 = "UINT16", u32 = "UINT32", u64 = "UINT64",
}

impl<'a, T: Element> Tensor<'a, T> {
    /// Reads a part; the error continues a sentence that names the part.
    pub(crate) fn parse(content_type: &str, bytes: &'a [u8]) -> Result<Self, String> {
        let Some(tensor) =
            TensorType::parse(content_type).map_err(|why| format!("is a broken tensor: {why}"))?
        else {
            return Err(format!("is no tensor: its content type is {content_type:?}"));
        };
        // A BOOL is one byte, 0 or 1, and a handler reads it as u8.
        let fits = tensor.dtype == T::DTYPE || (tensor.dtype == "BOOL" && T::DTYPE == "UINT8");
        if !fits {
            return Err(format!("is a tensor of {}, not of {}", tensor.dtype, T::DTYPE));
        }
        let wanted = tensor.elements().and_then(|elements| elements.checked_mul(size_of::<T>()));
        if wanted != Some(bytes.len()) {
            return Err(format!(
                "holds {} bytes, which don't fill the shape {:?}",
                bytes.len(),
                tensor.shape
            ));
        }
        let values =
            try_cast_slice(bytes).map_or_else(|_| Cow::Owned(pod_collect_to_vec(bytes)), Cow::Borrowed);
        Ok(Self { shape: tensor.shape, values })
    }
}

/// The label of a tensor of this type and shape.
pub(crate) fn content_type<T: Element>(shape: &[usize]) -> String {
    TensorType { dtype: T::DTYPE.to_owned(), shape: shape.to_vec() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_bytes_are_borrowed_and_others_copied() {
        let numbers = [0.0_f32, 1.5, -2.0, 3.0];
        let label = content_type::<f32>(&[2, 2]);
        let aligned: &[u8] = bytemuck::cast_slice(&numbers);
        let tensor = Tensor::<f32>::parse(&label, aligned).unwrap();
        assert!(matches!(tensor.values, Cow::Borrowed(_)));
        assert_eq!((tensor.shape.as_slice(), &*tensor.values), (&[2, 2][..], &numbers[..]));

        // One element back and three bytes on: never aligned, whatever the address of the array.
        let mut shifted = [0_u8; 20];
        let start = 1 + shifted.as_ptr().align_offset(4);
        shifted[start..start + 16].copy_from_slice(aligned);
        let copy = Tensor::<f32>::parse(&label, &shifted[start..start + 16]).unwrap();
        assert!(matches!(copy.values, Cow::Owned(_)));
        assert_eq!(*copy.values, numbers);
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let fails = |label: &str, bytes: &[u8]| Tensor::<f32>::parse(label, bytes).unwrap_err();
        assert!(fails("image/png", &[]).contains("image/png"));
        assert!(fails(&content_type::<i64>(&[1]), &[0; 8]).contains("of INT64, not of FP32"));
        assert!(fails(&content_type::<f32>(&[2]), &[0; 4]).contains("4 bytes"));
        assert!(fails(&content_type::<f32>(&[usize::MAX, 8]), &[0; 4]).contains("don't fill"));
        assert_eq!(
            &*Tensor::<u8>::parse("application/x-zoo-tensor;dtype=BOOL;shape=2", &[0, 1]).unwrap().values,
            &[0, 1]
        );
        f32::to_bytes(&[3], &[1.0]).unwrap_err();
    }
}
