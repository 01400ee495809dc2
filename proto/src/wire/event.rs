//! Worker to server, beside the answers: metrics and log records.

use bytes::BufMut;

use super::cursor::Cursor;
use super::frame::{Frame, Kind, WireError};
use super::outbox::Outbox;

/// How a metric adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// Values are added.
    Counter,
    /// The last value counts.
    Gauge,
    /// Values are sorted into buckets.
    Histogram,
}

/// One value that a handler reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit in TorchServe's words, e.g. `Milliseconds`.
    pub unit: String,
    /// How it adds up.
    pub kind: MetricType,
    /// The value.
    pub value: f64,
    /// The requests it belongs to, joined by commas.
    pub request_ids: String,
    /// Names and values of its dimensions.
    pub dimensions: Vec<(String, String)>,
}

/// A log record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// 10 debug, 20 info, 30 warning, 40 error.
    pub level: u8,
    /// Who logs.
    pub logger: String,
    /// What.
    pub message: String,
}

/// Sends metrics, which must fit one frame.
pub fn encode_metrics(metrics: &[Metric], out: &mut Outbox) {
    out.frame(Kind::Metric, 0, |payload| {
        let text = |payload: &mut bytes::BytesMut, text: &str| {
            payload.put_u16_le(text.len() as u16);
            payload.put_slice(text.as_bytes());
        };
        payload.put_u16_le(metrics.len() as u16);
        for metric in metrics {
            text(payload, &metric.name);
            text(payload, &metric.unit);
            payload.put_u8(metric.kind as u8);
            payload.put_f64_le(metric.value);
            text(payload, &metric.request_ids);
            payload.put_u16_le(metric.dimensions.len() as u16);
            for (name, value) in &metric.dimensions {
                text(payload, name);
                text(payload, value);
            }
        }
    });
}

/// Reads a Metric frame. A type of a later version counts as a gauge.
pub fn decode_metrics(frame: &Frame) -> Result<Vec<Metric>, WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    let count = payload.get_u16_le()?;
    (0..count).map(|_| decode_metric(&mut payload)).collect()
}

fn decode_metric(payload: &mut Cursor) -> Result<Metric, WireError> {
    let name = payload.str16()?;
    let unit = payload.str16()?;
    let kind = match payload.get_u8()? {
        0 => MetricType::Counter,
        2 => MetricType::Histogram,
        _ => MetricType::Gauge,
    };
    let value = payload.get_f64_le()?;
    let request_ids = payload.str16()?;
    let dimensions = payload.get_u16_le()?;
    let dimensions = (0..dimensions)
        .map(|_| Ok((payload.str16()?, payload.str16()?)))
        .collect::<Result<_, WireError>>()?;
    Ok(Metric { name, unit, kind, value, request_ids, dimensions })
}

/// Sends a log record.
pub fn encode_log(log: &Log, out: &mut Outbox) {
    out.frame(Kind::Log, 0, |payload| {
        payload.put_u8(log.level);
        payload.put_u16_le(log.logger.len() as u16);
        payload.put_slice(log.logger.as_bytes());
        payload.put_slice(log.message.as_bytes());
    });
}

/// Reads a Log frame.
pub fn decode_log(frame: &Frame) -> Result<Log, WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    let level = payload.get_u8()?;
    let logger = payload.str16()?;
    Ok(Log { level, logger, message: payload.rest_lossy() })
}
