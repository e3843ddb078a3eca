# Add the tree that is mounted at /mnt to the image; folders that are named then belong to the user of the image.
set -eu
. /media/settle.sh
begin
cp -a /mnt/. /
for folder; do chown -R 1000:1000 "$folder"; done
settle
