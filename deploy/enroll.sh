#!/bin/sh
# Makes the keys and certificates of a fleet, and the broker's list of who may do what. Needs only sh and openssl.
#
# Laws:
# 1. The folder of a fleet is the truth: a device is enrolled while FLEET/devices/SITE/DEVICE is there, and the broker's
#    list is written anew from those folders, never edited.
# 2. No key, no certificate and no configuration that exists is overwritten. What is new is made beside its place and
#    moved there last; a run that was cut off is repeated.
# 3. A private key is readable by its owner alone.
set -eu
umask 077
LC_ALL=C
export LC_ALL
CDPATH=''
here=$(cd -- "$(dirname -- "$0")" && pwd)

CA_DAYS=3650
BROKER_DAYS=730
HUB_DAYS=730
DEVICE_DAYS=730

usage() {
  cat <<'HELP'
Make the keys and certificates of a fleet, and the broker's list of who may do what.

  enroll.sh init FLEET --broker HOST [--broker HOST ...]
      Make the folder FLEET: two authorities, the broker's folder, the hub's folder. HOST is each name or address under
      which the broker is reached. What is there already stays as it is.

  enroll.sh device FLEET SITE DEVICE [--broker HOST] [--camera SOURCE]
      Enrol a device: FLEET/devices/SITE/DEVICE and DEVICE.tar.gz beside it, with its key, its certificate, the broker's
      authority and a ready edge.toml. HOST is the first one given to init, SOURCE is /dev/video0, unless given.

  enroll.sh revoke FLEET SITE DEVICE
      Take a device's certificate back. The name can then be enrolled again, with a new key.

  enroll.sh list FLEET
      One line a device: SITE DEVICE and the day its certificate ends.

FLEET/ca and FLEET/hub-ca hold the authorities' keys: keep the folder FLEET on a machine of your own, not on the broker.
After `device`, copy FLEET/broker to the broker again and reload it; after `revoke`, restart it. README.md beside this
script has every step from an empty machine to a device that reports.

Exit status: 0 done, 2 it could not be done.
HELP
}

die() {
  printf 'enroll.sh: %s\n' "$1" >&2
  exit 2
}

need() { # MINIMUM GIVEN: the number of arguments
  [ "$2" -ge "$1" ] || die "too few arguments; \`enroll.sh --help\` shows how"
}

ssl() {
  said=$(openssl "$@" 2>&1) || die "openssl $1: $(printf '%s\n' "$said" | sed -n '1p')"
}

require_name() { # WHAT VALUE
  case $2 in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9_.-]*) die "$1 '$2' is not usable: letters, digits, '_', '-' and '.'" ;;
  esac
}

require_host() { # VALUE
  case $1 in
    '' | [!A-Za-z0-9:]* | *[!A-Za-z0-9.:-]*) die "'$1' is not a host name or an address" ;;
  esac
}

require_fleet() {
  [ -f "$fleet/ca/ca.key" ] || die "$fleet is not a fleet; make it with \`enroll.sh init $fleet --broker HOST\`"
}

alt_name() { # HOST
  case $1 in
    *:*) printf 'IP:%s' "$1" ;;
    *[!0-9.]*) printf 'DNS:%s' "$1" ;;
    *) printf 'IP:%s' "$1" ;;
  esac
}

make_authority() { # FOLDER NAME
  [ ! -f "$1/ca.key" ] || return 0
  mkdir -p "$1"
  cat >"$1/openssl.cnf" <<'CNF'
[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[ca]
default_ca = authority_store
[authority_store]
database = index.txt
crlnumber = crlnumber
default_md = sha256
CNF
  : >"$1/index.txt"
  echo 01 >"$1/crlnumber"
  ssl req -x509 -config "$1/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
    -days "$CA_DAYS" -subj "/CN=$2" -keyout "$1/ca.key.new" -out "$1/ca.crt"
  mv "$1/ca.key.new" "$1/ca.key"
}

certify() { # STEM AUTHORITY NAME DAYS PURPOSE [ALTERNATIVE-NAMES]: makes STEM.key and STEM.crt
  {
    echo 'basicConstraints = critical, CA:FALSE'
    echo 'keyUsage = critical, digitalSignature'
    echo "extendedKeyUsage = $5"
    [ -z "${6:-}" ] || echo "subjectAltName = $6"
  } >"$1.ext"
  ssl req -new -config "$2/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
    -subj "/CN=$3" -keyout "$1.key.new" -out "$1.csr"
  ssl x509 -req -in "$1.csr" -CA "$2/ca.crt" -CAkey "$2/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
    -sha256 -days "$4" -extfile "$1.ext" -out "$1.crt"
  rm "$1.csr" "$1.ext"
  mv "$1.key.new" "$1.key"
}

make_revocation_list() {
  (cd -- "$fleet/ca" && ssl ca -config openssl.cnf -gencrl -crldays "$CA_DAYS" -keyfile ca.key -cert ca.crt -out crl.new)
  mv "$fleet/ca/crl.new" "$fleet/broker/crl.pem"
}

safe_id() { # NAME: as edge/home_assistant.py writes it into the device's discovery topic
  printf '%s\n' "$1" | sed 's/_/_u/g; s/[.]/_d/g'
}

write_access_list() {
  ( # a shell of its own: it has its own `site` and `device`
    cat "$here/mosquitto/acl"
    for folder in "$fleet"/devices/*/*/; do
      [ -f "$folder/device.crt" ] || continue
      device=$(basename -- "$folder")
      site=$(basename -- "$(dirname -- "$folder")")
      printf '\nuser %s:%s\n' "$site" "$device"
      for kind in event frame heartbeat state detections report; do
        printf 'topic write weakspot/1/%s/%s/%s\n' "$site" "$device" "$kind"
      done
      for kind in ack want policy assign; do
        printf 'topic read weakspot/1/%s/%s/%s\n' "$site" "$device" "$kind"
      done
      printf 'topic read weakspot/1/%s/policy\n' "$site"
      printf 'topic write homeassistant/device/weakspot__%s__%s/config\n' "$(safe_id "$site")" "$(safe_id "$device")"
    done
  ) >"$fleet/broker/acl.new"
  mv "$fleet/broker/acl.new" "$fleet/broker/acl"
}

init() {
  need 1 $#
  fleet=$1
  shift
  case $fleet in -* | '') die "the first argument of init is the folder to make, not '$fleet'" ;; esac
  hosts=''
  names=''
  while [ $# -gt 0 ]; do
    [ "$1" = --broker ] || die "unknown argument '$1'; \`enroll.sh --help\` shows how"
    need 2 $#
    require_host "$2"
    hosts="$hosts${hosts:+ }$2"
    names="$names${names:+, }$(alt_name "$2")"
    shift 2
  done
  [ -f "$fleet/broker/broker.key" ] || [ -n "$hosts" ] || die 'say under which name the broker is reached: --broker HOST'
  mkdir -p "$fleet/broker" "$fleet/hub" "$fleet/devices"
  make_authority "$fleet/ca" 'weakspot fleet'
  make_authority "$fleet/hub-ca" 'weakspot hubs'
  if [ ! -f "$fleet/broker/broker.key" ]; then
    certify "$fleet/broker/broker" "$fleet/ca" "${hosts%% *}" "$BROKER_DAYS" serverAuth "$names"
    printf '%s\n' "${hosts%% *}" >"$fleet/broker.host"
  fi
  [ -f "$fleet/hub/hub.key" ] || certify "$fleet/hub/hub" "$fleet/hub-ca" hub "$HUB_DAYS" clientAuth
  [ -f "$fleet/hub/hub.toml" ] || write_hub_toml "$(cat "$fleet/broker.host")"
  [ -f "$fleet/broker/crl.pem" ] || make_revocation_list
  cp "$fleet/ca/ca.crt" "$fleet/broker/ca.crt"
  cp "$fleet/ca/ca.crt" "$fleet/hub/ca.crt"
  cp "$fleet/hub-ca/ca.crt" "$fleet/broker/hub-ca.crt"
  [ -f "$fleet/broker/weakspot.conf" ] || cp "$here/mosquitto/weakspot.conf" "$fleet/broker/weakspot.conf"
  write_access_list
  echo "$fleet/broker is for the broker, $fleet/hub for the hub; next: enroll.sh device $fleet SITE DEVICE"
}

write_hub_toml() { # HOST
  cat >"$fleet/hub/hub.toml.new" <<TOML
# Written by enroll.sh. Relative paths start from this file's folder.
database = "/var/lib/weakspot-hub/weakspot.db"

[mqtt]
host = "$1"
port = 8884
ca = "ca.crt"
cert = "hub.crt"
key = "hub.key"
# Keep this name secret, the same for all processes of this hub. mosquitto lets every client join a group whose name it
# knows, and gives it a share of the messages; what it may not read is then lost to the hub until the device sends again.
group = "hub-$(openssl rand -hex 12)"
# The broker keeps nothing for an absent hub: the devices do. See README.md beside enroll.sh, "Reload and restart".
session_expiry_s = 0
TOML
  mv "$fleet/hub/hub.toml.new" "$fleet/hub/hub.toml"
}

device() {
  need 3 $#
  fleet=$1 site=$2 device=$3
  shift 3
  require_fleet
  require_name SITE "$site"
  require_name DEVICE "$device"
  [ $((${#site} + ${#device})) -le 63 ] || die 'SITE and DEVICE together may have 63 characters: a certificate names both'
  host=$(cat "$fleet/broker.host")
  camera=/dev/video0
  while [ $# -gt 0 ]; do
    case $1 in
      --broker | --camera) need 2 $# ;;
      *) die "unknown argument '$1'; \`enroll.sh --help\` shows how" ;;
    esac
    case $1 in
      --broker) host=$2 ;;
      --camera) camera=$2 ;;
    esac
    shift 2
  done
  require_host "$host"
  case $camera in
    *"'"* | *[[:cntrl:]]* | '') die "the camera's source may not be empty or have quotes or line breaks" ;;
  esac
  place=$fleet/devices/$site/$device
  [ ! -e "$place" ] || die "$site $device is enrolled already; revoke it first"

  new=$(mktemp -d "$fleet/.new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  mkdir "$new/device"
  certify "$new/device/device" "$fleet/ca" "$site:$device" "$DEVICE_DAYS" clientAuth
  cp "$fleet/ca/ca.crt" "$new/device/ca.crt"
  write_edge_toml "$host" "$camera" >"$new/device/edge.toml"
  tar -C "$new/device" -czf "$new/device.tar.gz" ca.crt device.crt device.key edge.toml
  mkdir -p "$fleet/devices/$site"
  mv "$new/device.tar.gz" "$place.tar.gz"
  mv "$new/device" "$place"
  write_access_list
  echo "$place.tar.gz is for the device; then copy $fleet/broker to the broker and reload it"
}

write_edge_toml() { # HOST CAMERA
  cat <<TOML
# Written by enroll.sh. Relative paths start from this file's folder.
site = "$site"
device = "$device"
data_dir = "/var/lib/weakspot-edge"

[mqtt]
host = "$1"
port = 8883
ca = "ca.crt"
cert = "device.crt"
key = "device.key"
# The broker keeps nothing for an absent device: its spool does, and the hub asks again. See "Reload and restart".
session_expiry_s = 0

[[camera]]
name = "camera1"
source = '$2'
TOML
}

revoke() {
  need 3 $#
  fleet=$1 site=$2 device=$3
  require_fleet
  require_name SITE "$site"
  require_name DEVICE "$device"
  place=$fleet/devices/$site/$device
  [ -f "$place/device.crt" ] || die "no device $site $device in $fleet"
  certificate=$(cd -- "$place" && pwd)/device.crt
  if ! said=$(cd -- "$fleet/ca" && openssl ca -config openssl.cnf -revoke "$certificate" -keyfile ca.key -cert ca.crt 2>&1); then
    case $said in
      *'Already revoked'*) ;; # an earlier run was cut off here
      *) die "openssl ca: $(printf '%s\n' "$said" | sed -n '1p')" ;;
    esac
  fi
  make_revocation_list
  rm -rf "$place" "$place.tar.gz"
  write_access_list
  echo "$site $device is revoked; copy $fleet/broker to the broker and restart it"
}

list() {
  need 1 $#
  fleet=$1
  require_fleet
  for certificate in "$fleet"/devices/*/*/device.crt; do
    [ -f "$certificate" ] || continue
    place=$(dirname -- "$certificate")
    end=$(openssl x509 -in "$certificate" -noout -enddate)
    echo "$(basename -- "$(dirname -- "$place")") $(basename -- "$place") until ${end#notAfter=}"
  done
}

for argument; do
  case $argument in -h | --help) usage && exit 0 ;; esac
done
command -v openssl >/dev/null || die 'openssl is not installed'
case ${1:-} in
  init | device | revoke | list) "$@" ;;
  '') usage >&2 && exit 2 ;;
  *) die "unknown command '$1'; \`enroll.sh --help\` shows how" ;;
esac
