//go:build programs

// Package programs names the programs that run.sh builds, so that go.mod pins them.
package programs

import (
	_ "github.com/summerwind/h2spec/cmd/h2spec"
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
