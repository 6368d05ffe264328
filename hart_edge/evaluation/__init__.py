"""How good pictures are: a checkpoint's or a bundle's, beside real ones, by a judge that the project trains itself.

evaluator.py       the judge: an image-text dual encoder, its files and its hash
frechet.py         Frechet distance, by the judge's features or by a user's Inception weights
retrieval.py       whether a picture finds its prompt among a hundred
subjects.py        what is judged: the reference with a checkpoint's weights, or a bundle
reconstruction.py  how well pictures come back from the autoencoder: PSNR, SSIM, codes in use
evaluate.py        all figures of one subject
progress.py        how far a long step is, and how many prompts were cut
"""
