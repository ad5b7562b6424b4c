package main

// The server's own key pair, $HOME/.ollama/id_ed25519, that signs in at ollama.com, which
// nobody does here: without a writable HOME the server does not start.

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func ensureKeypair() error {
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	path := filepath.Join(home, ".ollama", "id_ed25519")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Printf("Couldn't find '%s'. Generating new private key.\n", path)
	key := make([]byte, 32)
	_, err = rand.Read(key)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, key, 0o600)
	}
	if err == nil {
		err = os.WriteFile(path+".pub", []byte("ssh-ed25519 "+base64.StdEncoding.EncodeToString(key)+"\n"), 0o644)
	}
	return err
}
