package main

// The server's own key pair, $HOME/.ollama/id_ed25519, that signs in at ollama.com, which
// nobody does here: without a writable HOME the server does not start.

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
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
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("could not create directory %w", err)
	}
	data, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: data}), 0o600); err != nil {
		return err
	}
	line := "ssh-ed25519 " + base64.StdEncoding.EncodeToString(public)
	fmt.Printf("Your new public key is: \n\n%s\n\n", line)
	return os.WriteFile(path+".pub", []byte(line+"\n"), 0o644)
}
