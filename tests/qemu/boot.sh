#!/bin/bash
# Runs test programs on a pure cgroup v2 kernel in QEMU. See README.md here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${LAUF_QEMU_CACHE:-$here/../../target/qemu}
limit=${LAUF_QEMU_SECONDS:-600}
[ $# -gt 0 ] || { echo "usage: $0 PROGRAM... [SOURCE.c...]" >&2; exit 64; }

missing() { echo "tests/qemu: $1 is missing: $2" >&2; exit 77; }
command -v qemu-system-x86_64 >/dev/null || missing qemu-system-x86_64 'apt install qemu-system-x86'
command -v cpio >/dev/null || missing cpio 'apt install cpio'
busybox=$(command -v busybox) || missing busybox 'apt install busybox-static'
! ldd "$busybox" >/dev/null 2>&1 || missing 'a static busybox' 'apt install busybox-static'

# --- the kernel, once -------------------------------------------------------------------------------------------------------------
mkdir -p "$cache"
if ! ls "$cache"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  [ -n "$package" ] || missing 'the package linux-image-cloud-amd64' 'apt update'
  fresh=$(mktemp -d "$cache/kernel.XXXXXX")
  chmod 755 "$fresh"
  (cd "$fresh" && apt-get -q download "$package" >&2 && dpkg-deb -x ./*.deb . && rm ./*.deb) || { rm -rf "$fresh"; missing "$package" 'apt update, and a network'; }
  # Another run may have been faster.
  mv -T "$fresh" "$cache/kernel" 2>/dev/null || rm -rf "$fresh"
fi
kernel=$(ls "$cache"/kernel/boot/vmlinuz-* | tail -1)
version=${kernel##*/vmlinuz-}

# --- what it boots into -------------------------------------------------------------------------------------------------------------
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,lib,lib64,etc,proc,sys,dev,tmp,root,mnt,srv,opt,run,tests,probes,var/lib}
cp "$busybox" "$root/bin/busybox"
ln -s ../../bin/busybox "$root/usr/bin/busybox"

bring() { # a program and its shared libraries, to the same places
  local library
  [ -e "$root$2" ] || cp -L "$1" "$root$2"
  for library in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' || true); do
    [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
  done
}
# Not busybox's shell, which runs its own `ip` and `unshare` whatever the path says.
shell=$(command -v dash) || missing dash 'apt install dash'
bring "$shell" /bin/sh
for program in ip nft unshare; do
  path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program") || missing "$program" 'apt install iproute2 nftables util-linux'
  bring "$path" "/usr/sbin/$program"
done
# Compared with where a test wants it.
if path=$(PATH=$PATH:/usr/sbin command -v runc); then bring "$path" /usr/sbin/runc; fi

modules=lib/modules/$version
for part in net lib crypto arch fs/overlayfs drivers/net/veth.ko; do
  mkdir -p "$root/$modules/kernel/$(dirname "$part")"
  cp -r "$cache/kernel/$modules/kernel/$part" "$root/$modules/kernel/$part" 2>/dev/null || true
done
cp "$cache/kernel/$modules"/modules.{builtin,order} "$root/$modules/"
"$busybox" depmod -b "$root" "$version" >/dev/null 2>&1 || (cd "$root/$modules" && "$busybox" depmod "$version" . )

: > "$root/tests/list"
number=0
for argument in "$@"; do
  case $argument in
    *.c)
      compiler=$(command -v musl-gcc || command -v gcc) || missing 'a C compiler' 'apt install musl-tools'
      "$compiler" -O1 -static -o "$root/probes/$(basename "$argument" .c)" "$argument"
      ;;
    *)
      read -r -a words <<< "$argument"
      number=$((number + 1))
      name=$number-$(basename "${words[0]}")
      bring "${words[0]}" "/tests/$name"
      echo "/tests/$name ${words[*]:1}" >> "$root/tests/list"
      ;;
  esac
done
cat > "$root/usr/bin/musl-gcc" <<'COMPILER'
#!/bin/sh
# Stands in for the compiler: hands out what was compiled outside.
while [ $# -gt 0 ]; do
  case $1 in --version) exit 0 ;; -o) shift; out=$1 ;; *.c) source=$1 ;; esac
  shift
done
exec cp "/probes/$(basename "$source" .c)" "$out"
COMPILER
chmod 755 "$root/usr/bin/musl-gcc"
echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
echo '127.0.0.1 localhost' > "$root/etc/hosts"

# The first root is the kernel's own, out of which nobody can pivot; so everything moves to a tmpfs first.
cat > "$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mkdir /new
mount -t tmpfs -o mode=755 tmpfs /new
for each in /*; do
  [ "$each" = /new ] || [ "$each" = /init ] || cp -a "$each" /new/
done
exec switch_root /new /bin/busybox sh /tests/main
INIT
cat > "$root/tests/main" <<'MAIN'
export PATH=/usr/sbin:/sbin:/usr/bin:/bin HOME=/root RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
# The kernel fetches what else it needs by itself, as on other machines.
echo /bin/modprobe > /proc/sys/kernel/modprobe
ulimit -n 65536
ip link set lo up
for module in overlay veth bridge br_netfilter nf_tables nft_ct nft_chain_nat nft_masq nft_redir nft_reject_inet nft_meta_bridge nft_reject_bridge; do
  modprobe $module || echo "no module $module"
done
echo "kernel $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
failed=0
while read -r program arguments <&3; do
  echo "=== $program $arguments"
  $program $arguments 3<&- </dev/null
  status=$?
  echo "=== $program exited with $status"
  [ $status = 0 ] || failed=1
done 3< /tests/list
left=$(find /sys/fs/cgroup -mindepth 1 -type d)
[ -z "$left" ] || { echo "cgroups left behind: $left"; failed=1; }
echo "LAUF-QEMU-VERDICT $failed"
poweroff -f
MAIN
chmod 755 "$root/init"

image=$root.cpio
(cd "$root" && find . | cpio -o -H newc --quiet > "$image")
log=$root.log
trap 'rm -rf "$root" "$image" "$log"' EXIT

# --- the run ------------------------------------------------------------------------------------------------------------------------
timeout "$limit" qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu max -smp 2 -m 2G -nographic -no-reboot -nodefaults -serial stdio \
  -kernel "$kernel" -initrd "$image" -append 'console=ttyS0 quiet panic=-1 loglevel=3' </dev/null 2>&1 | tr -d '\r' | tee "$log" || true
case $(grep -a -o 'LAUF-QEMU-VERDICT [01]' "$log" || true) in
  'LAUF-QEMU-VERDICT 0') exit 0 ;;
  'LAUF-QEMU-VERDICT 1') exit 1 ;;
  *) echo 'tests/qemu: the machine did not come to the end' >&2; exit 2 ;;
esac
