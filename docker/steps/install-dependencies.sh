# Install comfypin's dependencies into /opt/comfypin, make them small, and lay them out as a layer.
set -eu
export PYTHONHASHSEED=0
. /media/certificates.sh
python3 -m venv --without-pip /opt/comfypin
# pip brings uv, and uv the rest, in a tenth of the time.
python3 -m pip --disable-pip-version-check --no-input --quiet install --require-hashes --no-compile \
    --target /build/installer --requirement /build/requirements/installer.txt
/build/installer/bin/uv --no-config --no-progress --quiet pip install --python /opt/comfypin/bin/python \
    --require-hashes --no-deps --link-mode copy --requirement /build/requirements/all.txt
if ! command -v strip >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends binutils >/dev/null
fi
cd /opt/comfypin
rm -f bin/[Aa]ctivate* bin/uvx
find lib -type d \( -name tests -o -name sboms -o -path '*/numpy/f2py' -o -path '*/numpy/distutils' \) -prune -exec rm -rf {} +
find lib -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.c' -o -name '*.a' \) -delete
# botocore describes 400 services in 27 MB, boto3 ten of them again; these are S3 and what its credentials may come from.
find lib \( -path '*/botocore/data/*' -o -path '*/boto3/data/*' \) -prune -type d \
    ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +
# zstandard brings its code twice; CPython uses backend_c.
find lib -path '*/zstandard/_cffi.*' -delete
# Half of some wheels is debugging symbols. The libraries in *.libs were moved there by tools that strip cannot follow.
find lib -type f -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
# This imports all that is used, so a library that was hurt by it fails the build, not a job.
bin/python /media/import_used.py
# What was imported is compiled anew by one process in one order: byte-code depends on what was compiled before it, and
# that of an import on its source's time. All byte-code would be 30 MB more.
find lib -name '*.pyc' | sed 's,__pycache__/\(.*\)\.cpython-[0-9]*\.pyc,\1.py,' | sort >/build/used
find lib -name '*.pyc' -delete
bin/python -m compileall -q --invalidation-mode unchecked-hash -i /build/used
mkdir -p /layers/dependencies/opt
cp -a /opt/comfypin /layers/dependencies/opt/
