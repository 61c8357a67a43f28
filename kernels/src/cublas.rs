//! How does NVIDIA's library multiply? cuBLASLt knows a kernel for each shape and GPU; it is looked for
//! when the program runs, and its choice of kernel is kept for each shape.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use crate::device::{HalfProduct, WeightFormat};
use crate::error::DeviceError;

/// Shapes whose kernels are kept: a step's rows are a few hundred different numbers.
const MOST_SHAPES: usize = 1024;

/// The library, opened.
pub struct Cublas {
    handle: sys::cublasLtHandle_t,
    shapes: Mutex<HashMap<Shape, Choice>>,
}

// SAFETY: NVIDIA's documentation calls the handle usable by many threads at once.
unsafe impl Send for Cublas {}
// SAFETY: as above.
unsafe impl Sync for Cublas {}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    format: WeightFormat,
    n_outputs: usize,
    n_cols: usize,
    n_rows: usize,
}

/// What the library is told of a shape, and which kernel it chose.
struct Choice {
    product: Description,
    weights: Layout,
    x: Layout,
    out: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: the descriptions are never changed once they are made, and the library reads them only.
unsafe impl Send for Choice {}

struct Description(sys::cublasLtMatmulDesc_t);

struct Layout(sys::cublasLtMatrixLayout_t);

struct Preference(sys::cublasLtMatmulPreference_t);

/// Where a product is computed: a stream, and memory for what the library passes on.
#[derive(Clone, Copy)]
pub struct Place {
    /// The driver's stream.
    pub stream: *mut c_void,
    /// Memory of the device, of this place alone.
    pub workspace: u64,
    /// Bytes of it.
    pub workspace_bytes: usize,
}

impl Cublas {
    /// Opens the library; nothing where there is none.
    ///
    /// # Errors
    /// When it is there and does not open.
    pub fn find() -> Result<Option<Self>, DeviceError> {
        // SAFETY: loading the library runs nothing but its own constructors.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let handle = result::create_handle().map_err(failed("open cuBLASLt"))?;
        Ok(Some(Self { handle, shapes: Mutex::default() }))
    }

    /// Its version, for example 130100; 0 where there is no library.
    pub fn version() -> usize {
        // SAFETY: as in `find`; the call takes nothing.
        unsafe {
            match sys::is_culib_present() {
                true => sys::cublasLtGetVersion(),
                false => 0,
            }
        }
    }

    /// Begins a product in `place`. Says whether the library has a kernel for it.
    ///
    /// # Safety
    /// The product's matrices lie in the device's memory, as long as it says, until it is done.
    ///
    /// # Errors
    /// When the library fails.
    pub unsafe fn multiply(
        &self,
        product: &HalfProduct,
        place: Place,
    ) -> Result<bool, DeviceError> {
        let HalfProduct { format, n_outputs, n_cols, n_rows, .. } = *product;
        let shape = Shape { format, n_outputs, n_cols, n_rows };
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if !shapes.contains_key(&shape) {
            if shapes.len() >= MOST_SHAPES {
                shapes.clear();
            }
            match self.choose(shape, place.workspace_bytes) {
                Ok(choice) => shapes.insert(shape, choice),
                Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => {
                    return Ok(false);
                }
                Err(error) => return Err(failed("find a product in cuBLASLt")(error)),
            };
        }
        let choice = &shapes[&shape];
        let (one, adds) = (1.0f32, f32::from(u8::from(product.adds)));
        let pointer = |device: u64| device as *const c_void;
        // SAFETY: the descriptions are of the matrices' sizes and live in the map, which is locked;
        // the matrices do by the caller's word; both factors are read before the call returns.
        let begun = unsafe {
            result::matmul(
                self.handle,
                choice.product.0,
                (&raw const one).cast(),
                (&raw const adds).cast(),
                pointer(product.weights.0),
                choice.weights.0,
                pointer(product.x.0),
                choice.x.0,
                pointer(product.out.0),
                choice.out.0,
                pointer(product.out.0).cast_mut(),
                choice.out.0,
                &raw const choice.algorithm,
                pointer(place.workspace).cast_mut(),
                place.workspace_bytes,
                place.stream.cast(),
            )
        };
        begun.map(|()| true).map_err(failed("multiply with cuBLASLt"))
    }

    /// The library has columns one after another where we have rows: `out` transposed is `weights`,
    /// which it sees transposed and transposes back, times `x` transposed, which it sees as it is.
    fn choose(&self, shape: Shape, workspace_bytes: usize) -> Result<Choice, CublasError> {
        let Shape { format, n_outputs, n_cols, n_rows } = shape;
        let (float, sixteen) = (
            sys::cudaDataType_t::CUDA_R_32F,
            match format {
                WeightFormat::Half => sys::cudaDataType_t::CUDA_R_16F,
                WeightFormat::Bfloat => sys::cudaDataType_t::CUDA_R_16BF,
            },
        );
        let product = Description::new(float)?;
        product.transpose_first()?;
        let weights = Layout::new(sixteen, n_cols, n_outputs)?;
        let x = Layout::new(sixteen, n_cols, n_rows)?;
        let out = Layout::new(float, n_outputs, n_rows)?;
        let preference = Preference::new(workspace_bytes)?;
        // SAFETY: all of them were just made.
        let chosen = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                product.0,
                weights.0,
                x.0,
                out.0,
                out.0,
                preference.0,
            )?
        };
        Ok(Choice { product, weights, x, out, algorithm: chosen.algo })
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        self.shapes.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        // SAFETY: it was made once, and nothing of it is left. What it says of that helps nobody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Description {
    /// Of a product whose sums are of `float`.
    fn new(float: sys::cudaDataType_t) -> Result<Self, CublasError> {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        result::create_matmul_desc(compute, float).map(Self)
    }

    fn transpose_first(&self) -> Result<(), CublasError> {
        let transposed = 1i32; // CUBLAS_OP_T
        let which = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        // SAFETY: the description was made, and the number is read before the call returns.
        unsafe {
            let number = (&raw const transposed).cast();
            result::set_matmul_desc_attribute(self.0, which, number, size_of::<i32>())
        }
    }
}

impl Layout {
    /// Columns without gaps.
    fn new(of: sys::cudaDataType_t, n_rows: usize, n_cols: usize) -> Result<Self, CublasError> {
        result::create_matrix_layout(of, n_rows as u64, n_cols as u64, n_rows as i64).map(Self)
    }
}

impl Preference {
    fn new(workspace_bytes: usize) -> Result<Self, CublasError> {
        let preference = Self(result::create_matmul_pref()?);
        let which =
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the preference was made, and the number is read before the call returns.
        unsafe {
            let number = (&raw const workspace_bytes).cast();
            result::set_matmul_pref_attribute(preference.0, which, number, size_of::<usize>())?;
        }
        Ok(preference)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it was made once; what the library says of its end helps nobody.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn failed(what: &'static str) -> impl FnOnce(CublasError) -> DeviceError {
    move |error| DeviceError::Driver { what: what.to_owned(), error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use half::{bf16, f16};
    use libloading::{Library, Symbol};

    use super::*;
    use crate::device::DevicePointer;
    use crate::naive;

    /// A library of that name, made of `tests/fake_cublaslt.c`, which is found from now on.
    fn fake() -> Library {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = std::env::temp_dir().join(format!("fake-cublaslt-{}.so", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let made = Command::new(compiler)
            .args([
                "-shared",
                "-fPIC",
                "-O1",
                "-Wall",
                "-Werror",
                "-Wl,-soname,libcublasLt.so",
                "-o",
            ])
            .arg(&path)
            .arg(format!("{root}/tests/fake_cublaslt.c"))
            .status();
        assert!(made.expect("there is a C compiler").success());
        // SAFETY: the library has no constructors.
        let library = unsafe { Library::new(&path) }.unwrap();
        std::fs::remove_file(&path).unwrap();
        library
    }

    #[test]
    fn the_library_is_told_our_rows_as_its_columns() {
        let library = fake();
        // SAFETY: it is declared so.
        let live: Symbol<'_, unsafe extern "C" fn() -> i32> =
            unsafe { library.get(b"fake_live") }.unwrap();
        let cublas = Cublas::find().unwrap().expect("it was just loaded");
        let mut room = [0u8; 64];
        let place = Place {
            stream: (&raw mut room).cast(),
            workspace: (&raw mut room) as u64,
            workspace_bytes: room.len(),
        };
        let multiplied = |format, adds, [n_rows, n_outputs, n_cols]: [usize; 3]| {
            let numbers =
                |seed: usize, n: usize| (0..n).map(move |i| ((i * seed) % 13) as f32 - 6.0);
            let bits = |x: f32| match format {
                WeightFormat::Half => f16::from_f32(x).to_bits(),
                WeightFormat::Bfloat => bf16::from_f32(x).to_bits(),
            };
            let x: Vec<f32> = numbers(5, n_rows * n_cols).collect();
            let weights: Vec<f32> = numbers(7, n_outputs * n_cols).collect();
            let narrow = |x: &[f32]| x.iter().map(|x| bits(*x)).collect::<Vec<u16>>();
            let (x_bits, weight_bits) = (narrow(&x), narrow(&weights));
            let mut out = vec![if adds { 0.5 } else { f32::NAN }; n_rows * n_outputs];
            let product = HalfProduct {
                format,
                weights: DevicePointer(weight_bits.as_ptr() as u64),
                x: DevicePointer(x_bits.as_ptr() as u64),
                out: DevicePointer(out.as_mut_ptr() as u64),
                n_outputs,
                n_cols,
                n_rows,
                adds,
            };
            // SAFETY: the stand-in multiplies on the host, where the matrices are.
            if !unsafe { cublas.multiply(&product, place) }.unwrap() {
                return false;
            }
            let there = if adds { 0.5 } else { 0.0 };
            let expected = naive::product(&x, &weights, n_cols).into_iter().map(|x| x + there);
            assert_eq!(out, expected.collect::<Vec<_>>(), "{format:?}");
            true
        };
        for format in [WeightFormat::Half, WeightFormat::Bfloat] {
            assert!(multiplied(format, false, [33, 5, 16]));
            assert!(multiplied(format, false, [2, 19, 8]));
            assert!(multiplied(format, true, [33, 5, 16])); // what it chose serves again
        }
        assert_eq!(Cublas::version(), 130_203);
        assert!(!multiplied(WeightFormat::Half, false, [2, 2, 7]), "there is no kernel for it");
        // SAFETY: as above.
        assert!(unsafe { live() } > 4);
        drop(cublas);
        // SAFETY: as above.
        assert_eq!(unsafe { live() }, 0, "all descriptions were given back");
    }
}
