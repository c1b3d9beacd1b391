"""What the sweep finds on the real X-rays: the studies, what is kept of them, and the page that is made of it."""
