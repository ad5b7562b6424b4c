#!/bin/bash
# Stands for Docker Hub's ollama/ollama: a registry on this host's loopback, and in it an image made
# of the lab's own release. It keeps the real one's layout: /usr/bin/ollama beside /usr/lib/ollama,
# the entry point /bin/ollama with `serve`, OLLAMA_HOST=0.0.0.0 and PATH in the environment, port
# 11434 exposed, root as its user.
#
# usage: ollama_image.sh VERSION RELEASE_URL; prints the image by its digest
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
version=$1 url=$2
registry=127.0.0.1:5000
root=/srv/image

apt-get update -qq
apt-get install -y -qq --no-install-recommends curl docker.io docker-cli docker-registry python3 zstd >/dev/null
cat > /etc/docker/registry/config.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: "$registry"}
YAML
systemctl restart docker-registry

rm -rf $root
mkdir -p $root/usr/lib64 $root/{dev,etc,proc,sys,tmp}
curl -fsS "$url/v$version/ollama-linux-amd64.tar.zst" | zstd -dq | tar -x -C $root/usr
for name in bin lib lib64; do ln -s usr/$name $root/$name; done
# The release's inference server is a Python program: its interpreter and every library of both.
python=$(readlink -f /usr/bin/python3)
library=/usr/lib/${python##*/}
cp -a --parents "$python" /usr/bin/python3 "$library" $root/
find $root/usr/lib/ollama "$library/lib-dynload" -name '*.so*' -print0 | xargs -0 ldd "$python" 2>/dev/null |
    awk '$2 == "=>" && $3 ~ "^/" { print $3 } $1 ~ "^/.*ld-linux" { print $1 }' | sort -u |
    while read -r file; do
        place=$root/usr${file#/usr}
        mkdir -p "${place%/*}"
        [ -e "$place" ] || cp -L "$file" "$place"
    done

name=$registry/ollama/ollama:$version
tar -C $root -c . | docker import --change 'ENTRYPOINT ["/bin/ollama"]' --change 'CMD ["serve"]' \
    --change 'ENV OLLAMA_HOST=0.0.0.0:11434' --change 'ENV PATH=/usr/bin' --change 'EXPOSE 11434' \
    - "$name" >/dev/null
docker push -q "$name" >/dev/null
docker image inspect --format '{{index .RepoDigests 0}}' "$name" | sed "s|@|:$version@|"
# Nothing is left of it but what a pull brings.
docker image rm "$name" >/dev/null
rm -rf $root
