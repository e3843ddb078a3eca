# Install comfypin itself, from the wheel in the context or by its version, and lay it out as a layer.
set -eu
export PYTHONHASHSEED=0
. /media/certificates.sh
site=$(/opt/comfypin/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
what=$(ls /build/comfypin/*.whl 2>/dev/null || cat /build/comfypin/requirement.txt)
python3 -m pip --disable-pip-version-check --no-input --quiet --python /opt/comfypin/bin/python install \
    --no-deps --no-compile "$what"
# Images are not built inside images.
rm -rf "$site/comfypin/data/project" "$site"/comfypin-*.dist-info/direct_url.json
/opt/comfypin/bin/python -m compileall -q --invalidation-mode unchecked-hash "$site/comfypin" "$site/rp_handler"
layer=/layers/comfypin
mkdir -p "$layer$site" "$layer/opt/comfypin/bin"
cp -a "$site/comfypin" "$site/rp_handler" "$site"/comfypin-*.dist-info "$layer$site/"
cp -a /opt/comfypin/bin/comfypin "$layer/opt/comfypin/bin/"
