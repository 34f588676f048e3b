// Package prompttest is a terminal for tests of prompts.
package prompttest
