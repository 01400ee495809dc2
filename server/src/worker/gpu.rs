//! Which device a worker gets: TorchServe's round robin. Pure but for its counters; knows no drivers.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::{DeviceType, Devices};

/// The devices of the machine, and whose turn it is.
#[derive(Debug, Default)]
pub struct Gpus {
    count: u32,
    turn: AtomicU32,
}

/// Whose turn it is among a model's own devices.
#[derive(Debug, Default)]
pub struct Turns(AtomicU32);

/// What a worker gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assigned {
    /// What the handler is told to use.
    pub gpu: Option<u32>,
    /// All that the process may see, if that is to be limited: the devices of a model that is spread over several.
    pub visible: Option<Vec<u32>>,
}

impl Gpus {
    /// `count` devices.
    pub fn new(count: u32) -> Self {
        Self { count, turn: AtomicU32::new(0) }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The devices that a model may use: those it names, if all of them exist, or else all.
    fn allowed(&self, devices: &Devices) -> Vec<u32> {
        let valid = devices.ids.iter().all(|id| *id < self.count);
        if valid && !devices.ids.is_empty() { devices.ids.clone() } else { (0..self.count).collect() }
    }

    /// Whether workers of this model use a device.
    pub fn used_by(&self, devices: &Devices) -> bool {
        self.count > 0 && devices.kind != Some(DeviceType::Cpu)
    }

    /// The most workers of this model that have devices of their own; `None` if workers share them.
    pub fn room_for(&self, devices: &Devices) -> Option<u32> {
        let limited = self.used_by(devices) && devices.per_worker > 0;
        limited.then(|| self.allowed(devices).len() as u32 / devices.per_worker)
    }

    /// The device, or devices, of the model's next worker.
    pub fn assign(&self, devices: &Devices, turns: &Turns) -> Assigned {
        if !self.used_by(devices) {
            return Assigned::default();
        }
        if devices.ids.is_empty() && devices.per_worker == 0 {
            // One counter for the whole server, raised before it is used: of several devices the second comes first.
            let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            return Assigned { gpu: Some(turn % self.count), visible: None };
        }
        let allowed = self.allowed(devices);
        let stride = devices.per_worker.max(1);
        let turn = turns.0.fetch_add(stride, Ordering::Relaxed) as usize;
        let own = |offset: u32| allowed[(turn + offset as usize) % allowed.len()];
        if devices.per_worker == 0 {
            return Assigned { gpu: Some(own(0)), visible: None };
        }
        // A process that sees only its own devices counts them from 0.
        Assigned { gpu: Some(0), visible: Some((0..stride).map(own).collect()) }
    }
}

/// The NVIDIA devices that the driver shows, in `/proc/driver/nvidia/gpus` or under another root in tests.
pub fn detect(root: &Path) -> u32 {
    let devices = std::fs::read_dir(root.join("proc/driver/nvidia/gpus")).into_iter().flatten();
    u32::try_from(devices.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus_of(gpus: &Gpus, devices: &Devices, workers: usize) -> Vec<Option<u32>> {
        let turns = Turns::default();
        (0..workers).map(|_| gpus.assign(devices, &turns).gpu).collect()
    }

    #[test]
    fn without_wishes_the_whole_server_takes_turns_and_the_second_device_comes_first() {
        let gpus = Gpus::new(3);
        let any = Devices::default();
        assert_eq!(gpus_of(&gpus, &any, 2), [Some(1), Some(2)]);
        assert_eq!(
            gpus_of(&gpus, &any, 2),
            [Some(0), Some(1)],
            "another model goes on where the first one stopped"
        );
        assert_eq!(gpus_of(&Gpus::new(1), &any, 2), [Some(0), Some(0)]);
    }

    #[test]
    fn named_devices_are_taken_in_turn_from_the_first() {
        let named = Devices { ids: vec![2, 0], ..Devices::default() };
        assert_eq!(gpus_of(&Gpus::new(3), &named, 3), [Some(2), Some(0), Some(2)]);
        let invalid = Devices { ids: vec![2, 7], ..Devices::default() };
        assert_eq!(gpus_of(&Gpus::new(3), &invalid, 3), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn no_device_for_cpu_models_and_machines_without() {
        let cpu = Devices { kind: Some(DeviceType::Cpu), ids: vec![1], ..Devices::default() };
        assert_eq!(gpus_of(&Gpus::new(3), &cpu, 1), [None]);
        let gpu = Devices { kind: Some(DeviceType::Gpu), ..Devices::default() };
        assert_eq!(gpus_of(&Gpus::new(0), &gpu, 1), [None]);
    }

    #[test]
    fn a_spread_model_sees_its_own_devices_only() {
        let gpus = Gpus::new(4);
        let spread = Devices { per_worker: 2, ..Devices::default() };
        let turns = Turns::default();
        let visible: Vec<_> = (0..2).map(|_| gpus.assign(&spread, &turns).visible).collect();
        assert_eq!(visible, [Some(vec![0, 1]), Some(vec![2, 3])]);
        assert_eq!(gpus.room_for(&spread), Some(2));
        assert_eq!(gpus.room_for(&Devices { per_worker: 3, ..Devices::default() }), Some(1));
        assert_eq!(gpus.room_for(&Devices { per_worker: 5, ..Devices::default() }), Some(0));
        assert_eq!(gpus.room_for(&Devices::default()), None);
    }

    #[test]
    fn devices_are_counted_where_the_driver_lists_them() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(detect(root.path()), 0);
        for bus in ["0000:00:1e.0", "0000:00:1f.0"] {
            std::fs::create_dir_all(root.path().join("proc/driver/nvidia/gpus").join(bus)).unwrap();
        }
        assert_eq!(detect(root.path()), 2);
    }
}
