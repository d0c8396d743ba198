#!/usr/bin/env bash
# HTTP/2, gRPC, WebSocket and HTTP/1 through the gateway, told by other people's programs: h2spec, the interop client of gRPC,
# curl and h2load. What has no such program is compared with the same app without a gateway. See run.py.
set -uo pipefail
cd "$(dirname "$0")"
tools=${CARGO_TARGET_DIR:-../../target}/protocols
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
if ! command -v go >/dev/null; then
  echo "SKIP protocols: go is not installed"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
fi
if ! (cd go && go mod download >&2); then
  echo "SKIP protocols: the Go modules of h2spec and gRPC's interop programs cannot be had"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
fi
# Static, as they run in images that hold nothing else.
if ! (cd go && CGO_ENABLED=0 go build -o "$tools/" ./app github.com/summerwind/h2spec/cmd/h2spec \
  google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server >&2); then
  echo "FAIL protocols: the programs in tests/protocols/go cannot be built"
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi
export TOOLS=$tools
exec python3 run.py "$@"
