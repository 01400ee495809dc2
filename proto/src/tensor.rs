//! Tensors between server and worker: a part or an answer whose content type says what its bytes are.
//!
//! `application/x-zoo-tensor;dtype=FP32;shape=2x3` is 24 bytes, little-endian, row after row. The names of the types are those of the
//! open inference protocol (`FP32`, `INT64`, `UINT8`, `BOOL` …); the shape of a scalar is empty.

use std::fmt;

/// The media type without its parameters.
pub const MEDIA_TYPE: &str = "application/x-zoo-tensor";

/// What the bytes of a tensor are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// The type of an element.
    pub dtype: String,
    /// Length of each dimension, outermost first.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// Reads a content type; `Ok(None)` if it isn't that of a tensor.
    pub fn parse(content_type: &str) -> Result<Option<Self>, String> {
        let mut fields = content_type.split(';').map(str::trim);
        if !fields.next().is_some_and(|media| media.eq_ignore_ascii_case(MEDIA_TYPE)) {
            return Ok(None);
        }
        let (mut dtype, mut shape) = (None, None);
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            match name {
                "dtype" => dtype = Some(value.to_owned()),
                "shape" => shape = Some(parse_shape(value)?),
                _ => {}
            }
        }
        match (dtype, shape) {
            (Some(dtype), Some(shape)) => Ok(Some(Self { dtype, shape })),
            _ => Err(format!("a tensor needs a dtype and a shape, this one is {content_type:?}")),
        }
    }

    /// How many elements it has; `None` if no machine could hold them.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length))
    }
}

fn parse_shape(text: &str) -> Result<Vec<usize>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lengths = text.split('x').map(str::parse).collect::<Result<_, _>>();
    lengths.map_err(|_| format!("the shape of a tensor is lengths joined by x, as in 2x3, not {text:?}"))
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MEDIA_TYPE};dtype={};shape=", self.dtype)?;
        for (index, length) in self.shape.iter().enumerate() {
            write!(f, "{}{length}", if index == 0 { "" } else { "x" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_type_reads_as_it_is_written() {
        for (dtype, shape, text) in [
            ("FP32", vec![2, 3], "application/x-zoo-tensor;dtype=FP32;shape=2x3"),
            ("INT64", vec![], "application/x-zoo-tensor;dtype=INT64;shape="),
            ("BOOL", vec![0], "application/x-zoo-tensor;dtype=BOOL;shape=0"),
        ] {
            let tensor = TensorType { dtype: dtype.into(), shape };
            assert_eq!(tensor.to_string(), text);
            assert_eq!(TensorType::parse(text), Ok(Some(tensor)));
        }
        let spaced = TensorType::parse("Application/X-Zoo-Tensor; shape=4; dtype=FP64; more=1");
        assert_eq!(spaced, Ok(Some(TensorType { dtype: "FP64".into(), shape: vec![4] })));
    }

    #[test]
    fn what_is_no_tensor_is_told_from_a_broken_one() {
        assert_eq!(TensorType::parse("application/json"), Ok(None));
        for broken in ["", ";dtype=FP32", ";dtype=FP32;shape=2,3", ";dtype=FP32;shape=-1", ";shape=2"] {
            TensorType::parse(&format!("{MEDIA_TYPE}{broken}")).unwrap_err();
        }
        let huge = TensorType { dtype: "FP32".into(), shape: vec![usize::MAX, 2] };
        assert_eq!(huge.elements(), None);
    }
}
