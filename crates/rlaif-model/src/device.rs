//! Devices by name.

use burn::tensor::Device;

use crate::error::{ModelError, Result};

/// Opens the device that a config file names: `cpu` (Burn's `flex`), `wgpu`, `vulkan`, `metal`, `rocm`, `cuda` where the
/// binary was built with that feature, or `auto`: the first GPU backend of the build, else the CPU.
///
/// # Errors
/// If this binary was built without the backend, or the name is unknown.
pub fn open_device(name: &str) -> Result<Device> {
    let found = match name {
        "auto" => first_gpu().or_else(cpu),
        "cpu" | "flex" => cpu(),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(0usize)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::rocm(0usize)),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        _ => None,
    };
    found.ok_or_else(|| ModelError::Device {
        name: name.to_string(),
        reason: format!("not in this build, which has `auto`, `{}`", available().join("`, `")),
    })
}

/// Names that [`open_device`] knows in this build, beside `auto`.
pub fn available() -> Vec<&'static str> {
    [
        ("cpu", cfg!(feature = "flex")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
    ]
    .into_iter()
    .filter_map(|(name, built)| built.then_some(name))
    .collect()
}

fn cpu() -> Option<Device> {
    #[cfg(feature = "flex")]
    return Some(Device::flex());
    #[cfg(not(feature = "flex"))]
    None
}

fn first_gpu() -> Option<Device> {
    let gpu = available().into_iter().find(|name| *name != "cpu")?;
    open_device(gpu).ok()
}

/// Whether tensors of this device are `flex` tensors in host memory, for which the fused CPU kernels are used.
pub(crate) fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    {
        use burn::backend::DispatchDevice;
        matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_is_an_error_that_names_the_known_ones() {
        let message = open_device("abacus").unwrap_err().to_string();
        assert!(message.contains("`abacus`") && message.contains("`cpu`"), "{message}");
        assert!(is_flex(&open_device("cpu").unwrap()));
        assert!(is_flex(&open_device("cpu").unwrap().autodiff()));
    }
}
