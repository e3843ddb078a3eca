# Add the tree that is mounted at /mnt to the image.
set -eu
. /media/settle.sh
begin
cp -a /mnt/. /
settle
