//go:build !windows

package main

import "context"

// underManager calls run. Service managers of Unix start programs as shells do.
func underManager(ctx context.Context, run func(context.Context) error) error { return run(ctx) }
