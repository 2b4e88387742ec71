//! rlaif-model

mod attention;
mod batch;
mod config;
mod decoder;
mod device;
mod error;
mod heads;
mod logprobs;
mod lora;
mod params;
mod rope;
mod weights;

pub use batch::{PackedBatch, Reads, Segment, SegmentId};
pub use config::{Architecture, ModelConfig, RopeScaling};
pub use decoder::Decoder;
pub use device::{available as available_devices, open_device};
pub use error::{ModelError, Result};
pub use heads::ScalarHead;
pub use logprobs::TokenStatistics;
pub use lora::{LoraConfig, PROJECTIONS};
pub use params::Trainable;
pub use weights::WeightSource;
